"""14: what consumes becomes ten times slower."""

from __future__ import annotations

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.experiments.overload import slow_requests
from triptych.serve.chaos.lab import Lab

CAPACITY, CROWD = 32, 64
SETTLED_S = 2.0


def run(lab: Lab) -> None:
    """Every request occupies a worker for 20 ms: demand stops at the queue's bound, memory stays flat."""
    server = lab.serve(f"queue.capacity={CAPACITY}", "queue.batch_size=4")
    slow = slow_requests(lab.stage.image)
    for request in slow[:8]:
        lab.stage.reference.setdefault(request.number, lab.ask_once(server, request).digest)
    with lab.trial(server, slow, connections=CROWD, pause_s=0.02) as trial:
        trial.load.run_for(lab.times(2, long=60))
    refused = [answer for answer in trial.answers if answer.status == 503]
    others = [answer.error for answer in trial.answers if answer.status not in (200, 503)]
    lab.check("the rest is refused at once", refused and not others, f"{len(refused)} refused")
    filled = CAPACITY / 2 <= trial.watch.deepest <= CAPACITY
    lab.check("the queue fills to its bound, no further", filled, f"{trial.watch.deepest} of {CAPACITY}")
    with lab.trial(server) as after:
        after.load.wait_for(40)
    lab.no_errors(after)


EXPERIMENT = Experiment(
    14,
    "a consumer ten times slower",
    "demand stops, the rest is refused, memory stays flat",
    run,
    brokers=ANYWHERE,
)
