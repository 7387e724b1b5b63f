"""10: somebody deletes the queue of jobs, which cancels its consumers; RabbitMQ takes a worker for lost."""

from __future__ import annotations

import os
import signal

from triptych.serve.chaos.experiment import AMQP, Experiment
from triptych.serve.chaos.experiments.broker_away import accepted_again, finish
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.rabbit import RabbitServer

IMPATIENT = {"consumer_timeout": 1000, "channel_tick_interval": 500}  # ms; looked at every 500 ms
USUAL = {"consumer_timeout": 1_800_000, "channel_tick_interval": 60_000}
CLOSED_S = 20.0
JOBS = "triptych.jobs"


def run(lab: Lab) -> None:
    """The queue is declared again and what it held sent again; what is not acknowledged is redelivered."""
    rabbit, server = lab.stage.rabbit(), lab.shared()
    with lab.jobs(server) as jobs:
        for _ in range(lab.times(1, long=5)):
            jobs.wait_for(lab.chance.randrange(20, 60))
            past = len(server.events)
            rabbit.control("delete_queue", JOBS)
            told = lab.logged(server, JOBS, past)
            lab.check("the log names the queue", told, told)
            accepted_again(lab, jobs, "the queue was deleted")
    finish(lab, jobs)
    acknowledged_late(lab, rabbit)


def acknowledged_late(lab: Lab, rabbit: RabbitServer) -> None:
    """Stopped workers hold jobs for longer than RabbitMQ waits for a word (406): it closes the channel."""
    rabbit.set(**IMPATIENT)
    try:
        server = lab.serve_behind(lab.relay(rabbit.port))
        with lab.jobs(server) as jobs:
            jobs.wait_for(lab.chance.randrange(20, 60))
            past, pids = len(server.events), server.worker_pids()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            closed = lab.logged(server, "PRECONDITION_FAILED", past, timeout_s=CLOSED_S)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            lab.check("the log says why the channel was closed", closed, closed)
            accepted_again(lab, jobs, "the channel was closed")
        finish(lab, jobs)
    finally:
        rabbit.set(**USUAL)


EXPERIMENT = Experiment(
    10,
    "the queue of jobs is deleted, its consumers are cancelled; a late acknowledgement (406)",
    "declared again, redelivered, said in the log; no accepted job is lost",
    run,
    brokers=AMQP,
)
