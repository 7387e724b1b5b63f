"""24: a worker reaches its memory limit."""

from __future__ import annotations

import resource

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.server import Server

SPARE_BYTES = 512 * 2**20


def run(lab: Lab) -> None:
    """An input on which the model takes all the memory it may have: it alone fails, in its worker alone."""
    server = lab.serve()
    limit_memory(server)
    with lab.trial(server) as trial:
        for _ in range(lab.times(1, long=10)):
            trial.load.wait_for(lab.chance.randrange(20, 60))
            answer = trial.ask(lab.harmful(Fault.HOG))
            lab.check("the hungry input fails", answer.status == 500, answer.error)
        trial.load.wait_for(60)
    lab.no_errors(trial)
    are_small(lab, server)


def on_jobs(lab: Lab) -> None:
    """Hand it in as a job: it has failed, or is dead after three workers; the others are done."""
    server = lab.serve_jobs(lab.stage.store())
    limit_memory(server)
    with lab.jobs(server) as jobs:
        lab.hand_in(jobs, Fault.HOG)
    lab.ends(jobs, Fault.HOG, "failed", "dead")
    are_small(lab, server)


def limit_memory(server: Server) -> None:
    """Half a gigabyte more than each worker has now."""
    for pid in server.worker_pids():
        limit = process.address_space_bytes(pid) + SPARE_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))


def are_small(lab: Lab, server: Server) -> None:
    """The workers have given the memory back."""
    limited = [process.rss_bytes(pid) for pid in server.worker_pids()]
    lab.check("the workers are small again", max(limited) < SPARE_BYTES, f"{max(limited) >> 20} MiB")


EXPERIMENT = Experiment(
    24,
    "a worker reaches its memory limit",
    "that input fails, or that worker is replaced; nobody else",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
