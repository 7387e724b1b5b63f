"""4: an input that ends the process that computes it."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab


def run(lab: Lab) -> None:
    """Send it in a crowd: the innocents are answered, it is given up after three deaths."""
    server = lab.shared()
    with lab.trial(server) as trial:
        for _ in range(lab.times(1, long=5)):
            trial.load.wait_for(lab.chance.randrange(20, 80))
            past = len(server.events)
            trial.watch.expect(None)  # both workers may be gone for a moment
            answer = trial.ask(lab.harmful(Fault.ABORT))
            said = "died of it" in answer.error
            lab.check("the deadly input is refused", answer.status == 500 and said, answer.error)
            died = lab.deaths(server, past, 3)
            lab.check("three workers died of it, or one more", 3 <= len(died) <= 4, died)
            lab.all_back(server)
            trial.watch.expect(True)
        trial.load.wait_for(40)
    lab.no_errors(trial)
    escalated = [event for event in server.events if event.get("event_kind") == "escalated"]
    lab.check("the restart budget is intact", not escalated, f"{len(escalated)} escalations")


def on_jobs(lab: Lab) -> None:
    """Hand it in as a job in a crowd: the innocents are done, it is given up to the dead letters."""
    server = lab.durable()
    past = len(server.events)
    with lab.jobs(server) as jobs:
        lab.hand_in(jobs, Fault.ABORT)
    lab.ends(jobs, Fault.ABORT, "dead")
    died = lab.deaths(server, past, 3)
    lab.check("three workers died of it, or one more", 3 <= len(died) <= 4, died)
    lab.all_back(server)


EXPERIMENT = Experiment(
    4,
    "an input that aborts the worker",
    "found by bisecting; innocents answered; refused after 3 deaths; restart budget intact",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
