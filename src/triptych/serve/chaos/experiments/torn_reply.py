"""2: a worker dies while it writes its reply."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab


def run(lab: Lab) -> None:
    """Half a frame is in the socket when the worker is killed; another answers, with the same bytes."""
    server = lab.shared()
    wanted = lab.harmful(Fault.TORN)
    with lab.trial(server) as trial:
        whole = trial.ask(wanted)  # not armed: it does no harm
        for _ in range(lab.times(2, long=20)):
            trial.load.wait_for(lab.chance.randrange(10, 40))
            past = len(server.events)
            lab.stage.arm(Fault.TORN)
            answer = trial.ask(wanted)
            died = lab.deaths(server, past, 1)
            lab.check("the worker was killed half-way", len(died) == 1 and "SIGKILL" in died[0], died)
            lab.check("another gave the whole answer", answer.digest == whole.digest != "", answer.error)
            lab.all_back(server)
    lab.no_errors(trial)


def on_jobs(lab: Lab) -> None:
    """The same with the reply to a job: another worker does it, with the same bytes."""
    server = lab.durable()
    past = len(server.events)
    lab.stage.arm(Fault.TORN)
    with lab.jobs(server) as jobs:
        lab.hand_in(jobs, Fault.TORN)
    lab.ends(jobs, Fault.TORN, "done")
    died = lab.deaths(server, past, 1)
    lab.check("a worker was killed half-way", len(died) == 1 and "SIGKILL" in died[0], died)
    lab.all_back(server)


EXPERIMENT = Experiment(
    2,
    "SIGKILL a worker when half of its reply is written",
    "the torn frame is dropped, then as 1",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
