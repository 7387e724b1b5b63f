"""16: clients with short deadlines that ask again at once."""

from __future__ import annotations

from dataclasses import replace

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.experiments.overload import ROWS, slow_requests
from triptych.serve.chaos.lab import Lab

SHORT_S = 0.05
CROWD = 32


def run(lab: Lab) -> None:
    """A storm of requests that expire in the queue; what has expired is not computed."""
    server = lab.serve("queue.batch_size=4")
    slow = slow_requests(lab.stage.image)
    hasty = [replace(request, timeout_s=SHORT_S) for request in slow]
    rows = "triptych_batch_rows_sum"
    before = server.metric(rows)
    with lab.trial(server, hasty, connections=CROWD) as storm:
        storm.load.run_for(lab.times(2, long=30))
    with lab.trial(server) as normal:
        normal.load.wait_for(lab.times(100, long=1000))
    computed = (server.metric(rows) - before - sum(1 + a.number % 4 for a in normal.answers)) / ROWS
    late = sum(answer.status in (503, 504) for answer in storm.answers)
    others = [a.error for a in storm.answers if a.status not in (200, 503, 504)]
    asked = len(storm.answers)
    lab.check(
        "each is answered, expires or is refused",
        late > asked / 2 and not others,
        f"{late} of {asked} expired or refused",
    )
    detail = f"about {computed:.0f} computed of {asked} asked"
    lab.check("what has expired is not computed", computed < asked / 2, detail)
    lab.no_errors(normal)
    first = min(normal.load.tally.answers, key=lambda a: a.answered_at_s)
    lab.at_most("first normal answer", first.answered_at_s - normal.load.tally.started_at_s, "s", 0.5)


EXPERIMENT = Experiment(
    16,
    "a storm of retries with deadlines of 50 ms, then normal load",
    "what has expired is dropped before it is computed; all of the normal load is answered",
    run,
    brokers=ANYWHERE,
)
