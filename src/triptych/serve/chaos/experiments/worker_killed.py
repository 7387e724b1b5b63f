"""1: workers are killed in the middle of their batches, again and again."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.lab import Lab

EVERY_S = 2.0


def run(lab: Lab) -> None:
    """Kill a random worker at a random moment under load; its work is done by another."""
    server = lab.shared()
    kills = lab.times(3, long=30)
    with lab.trial(server) as trial:
        for _ in range(kills):
            trial.load.wait_for(lab.chance.randrange(20, 80))
            lab.replaces(server)
            if not lab.quick:
                trial.load.run_for(EVERY_S - (lab.recovery_s or 0.0))
        trial.load.wait_for(40)
    lab.no_errors(trial)
    lab.deaths_in_time()


def on_jobs(lab: Lab) -> None:
    """The same while workers do jobs: every accepted job is done."""
    server = lab.durable()
    with lab.jobs(server) as jobs:
        for _ in range(lab.times(2, long=10)):
            jobs.wait_for(lab.chance.randrange(10, 40))
            lab.replaces(server)
        jobs.wait_for(20)
    lab.all_done(jobs)
    lab.deaths_in_time()


EXPERIMENT = Experiment(
    1,
    "SIGKILL a worker in the middle of its batch, every 2 s for a minute",
    "its work is done by another; no client notices",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
