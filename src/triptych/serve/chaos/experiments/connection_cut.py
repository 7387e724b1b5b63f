"""12: the connection to RabbitMQ is cut between a result and the acknowledgement of its job."""

from __future__ import annotations

from triptych.serve.chaos.experiment import AMQP, Experiment
from triptych.serve.chaos.experiments.broker_away import BACK_S, accepted_again, finish
from triptych.serve.chaos.lab import Lab

RESULT = b"\x04done"  # the type of a message that carries a result, as AMQP writes a short string
CONFIRM = b"\x00\x3c\x00\x50"  # the method Basic.Ack (60, 80), by which RabbitMQ confirms


def run(lab: Lab) -> None:
    """RabbitMQ has the result and the job, and nobody knows: the job runs again, and gives the same bytes."""
    relay = lab.relay(lab.stage.rabbit().port)
    server = lab.serve_behind(relay)
    times = lab.times(1, long=10)
    with lab.jobs(server) as jobs:
        for _ in range(times):
            jobs.wait_for(lab.chance.randrange(20, 60))
            cut = relay.cut_between(RESULT, CONFIRM)
            lab.check("cut between result and acknowledgement", cut.wait(BACK_S * lab.stage.patience))
            accepted_again(lab, jobs, "it was cut off")
        lab.stage.rabbit().control("close_all_connections", "chaos")
        accepted_again(lab, jobs, "RabbitMQ closed every connection")
    finish(lab, jobs)
    again = [e["message"] for e in server.events if "another result" in e["message"]]
    lab.check("jobs were done twice, and their second result dropped", len(again) >= times, len(again))
    lab.check("the second result has the same bytes", not any("differs" in told for told in again), again[:1])


EXPERIMENT = Experiment(
    12,
    "the connection to RabbitMQ is cut between a result and its acknowledgement",
    "redelivered, deduplicated, the same bytes",
    run,
    brokers=AMQP,
)
