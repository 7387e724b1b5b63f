"""5: an input on which the model raises."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.server import Server


def run(lab: Lab) -> None:
    """Send it in a crowd, several times: it alone fails, and no process dies."""
    server = lab.shared()
    past, before = len(server.events), server.worker_pids()
    with lab.trial(server) as trial:
        for _ in range(lab.times(5, long=100)):
            trial.load.wait_for(lab.chance.randrange(5, 15))
            answer = trial.ask(lab.harmful(Fault.RAISE))
            if answer.status != 500 or "Traceback" in answer.error:
                lab.check("the raising input is refused", False, answer.error)
        trial.load.wait_for(20)
    refused = [answer for answer in trial.extra.answers if answer.status == 500]
    lab.check("only that item fails, each time", len(refused) == len(trial.extra.answers), len(refused))
    nobody_died(lab, server, past, before)
    lab.no_errors(trial)


def on_jobs(lab: Lab) -> None:
    """Hand it in as a job: it has failed, and says so; the others are done."""
    server = lab.durable()
    past, before = len(server.events), server.worker_pids()
    with lab.jobs(server) as jobs:
        lab.hand_in(jobs, Fault.RAISE)
    lab.ends(jobs, Fault.RAISE, "failed")
    nobody_died(lab, server, past, before)


def nobody_died(lab: Lab, server: Server, past: int, before: list[int]) -> None:
    """The workers are those of before."""
    died = [event for event in server.events[past:] if event.get("event_kind") == "died"]
    lab.check("no worker died", not died and server.worker_pids() == before, before)


EXPERIMENT = Experiment(
    5, "an input on which the model raises", "only that item fails", run, brokers=ANYWHERE, on_jobs=on_jobs
)
