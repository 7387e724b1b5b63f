"""3: a worker stops, or its model never returns."""

from __future__ import annotations

import signal

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.server import Server

HANG_TIMEOUT_S = 1.0  # of the shared server
SILENT = f"silent for {HANG_TIMEOUT_S:g} s"


def run(lab: Lab) -> None:
    """SIGSTOP a worker under load; then send an input on which the model loops for ever."""
    server = lab.shared()
    with lab.trial(server) as trial:
        for _ in range(lab.times(1, long=5)):
            trial.load.wait_for(lab.chance.randrange(20, 80))
            lab.replaces(server, signal.SIGSTOP, after_s=HANG_TIMEOUT_S)
        past = len(server.events)
        trial.watch.expect(None)  # both workers may be busy with it, or gone, for a moment
        answer = trial.ask(lab.harmful(Fault.LOOP, timeout_s=20.0))
        lab.all_back(server)
        trial.watch.expect(True)
        trial.load.wait_for(40)
    lab.check("the endless input is refused", answer.status == 500, answer.error)
    tried(lab, server, past, most=3)
    lab.no_errors(trial)
    lab.deaths_in_time()


def on_jobs(lab: Lab) -> None:
    """The same while workers do jobs: the endless one is given up to the dead letters."""
    server = lab.durable()
    with lab.jobs(server) as jobs:
        for _ in range(lab.times(1, long=5)):
            jobs.wait_for(lab.chance.randrange(10, 40))
            lab.replaces(server, signal.SIGSTOP, after_s=HANG_TIMEOUT_S)
        past = len(server.events)
        lab.hand_in(jobs, Fault.LOOP)
    lab.ends(jobs, Fault.LOOP, "dead")
    tried(lab, server, past, most=4)  # three times, the last with nothing else to do
    lab.all_back(server)
    lab.deaths_in_time()


def tried(lab: Lab, server: Server, past: int, most: int) -> None:
    """Each worker that had the endless input was killed because it was silent."""
    hung = lab.deaths(server, past, 3, kind="hung")
    lab.check(
        f"tried 3 to {most} times, and killed for silence each time",
        3 <= len(hung) <= most and all(SILENT in reason for reason in hung),
        hung,
    )


EXPERIMENT = Experiment(
    3,
    "SIGSTOP a worker; an input on which the model loops for ever",
    "killed after the hang timeout, then as 1; the endless input is given up after 3 tries",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
