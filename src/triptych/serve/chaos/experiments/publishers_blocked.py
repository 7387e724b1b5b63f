"""11: RabbitMQ takes nothing."""

from __future__ import annotations

from triptych.serve.chaos.experiment import AMQP, Experiment
from triptych.serve.chaos.experiments.broker_away import accepted_again, finish
from triptych.serve.chaos.lab import Lab

REFUSED_S = 20.0


def run(lab: Lab) -> None:
    """It has no memory left and blocks who publishes: jobs are 503 in time, the direct lane serves."""
    rabbit, server = lab.stage.rabbit(), lab.shared()
    with lab.trial(server, connections=4, strangers=True) as trial:
        with lab.jobs(server) as jobs:
            jobs.wait_for(lab.chance.randrange(10, 30))
            rabbit.control("set_vm_memory_high_watermark", "0.000001")
            refused = lab.wait_until(lambda: jobs.refused[503] >= 2, timeout_s=REFUSED_S)
            rabbit.control("set_vm_memory_high_watermark", "0.6")
            lab.check("jobs are refused with 503", refused, dict(jobs.refused))
            accepted_again(lab, jobs, "it was blocked")
        finish(lab, jobs)
        trial.load.wait_for(20)
    lab.no_errors(trial)


EXPERIMENT = Experiment(
    11,
    "jobs are handed in while RabbitMQ blocks publishers",
    "503 with Retry-After within 5 s; the direct lane serves",
    run,
    brokers=AMQP,
)
