"""15: three times as much is asked as can be computed."""

from __future__ import annotations

import time

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.faults import SLOW_FIRST, SLOW_ROW_S
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import Request, sample
from triptych.serve.chaos.stage import TIMEOUT_S, WORKERS

ROWS = 2  # of each request: with 10 ms a row, two workers can answer 100 in a second
CROWD, PAUSE_S = 64, 0.1  # about 400 requests a second, most of them refused
SETTINGS = ("queue.capacity=16", "queue.batch_size=4")
REFUSED_S, GOODPUT, NORMAL_S = 0.05, 0.9, 5.0


def slow_requests(model: str) -> list[Request]:
    """Requests that occupy a worker for a known time."""
    return [sample(SLOW_FIRST + 100 + i, model, n=ROWS, timeout_s=TIMEOUT_S) for i in range(40)]


def run(lab: Lab) -> None:
    """Measure what can be done, ask for three times as much, then for little again."""
    server = lab.serve(*SETTINGS)
    requests = slow_requests(lab.stage.image)
    for request in requests[:4]:
        lab.stage.reference[request.number] = lab.ask_once(server, request).digest
    seconds = lab.times(2, long=60)
    with lab.trial(server, requests, connections=12) as calm:
        calm.load.run_for(min(seconds, 5))
    with lab.trial(server, requests, connections=CROWD, pause_s=PAUSE_S) as crowd:
        crowd.load.run_for(seconds)
    ended_s = time.monotonic()
    with lab.trial(server, requests, connections=1) as after:
        lab.wait_until(lambda: any(a.elapsed_s < 0.1 and not a.error for a in after.answers), timeout_s=10.0)
        after.load.wait_for(5)
    capacity = len(calm.answers) / calm.load.tally.elapsed_s
    answered = [answer for answer in crowd.answers if answer.status == 200]
    refused = sorted(answer.elapsed_s for answer in crowd.answers if answer.status == 503)
    offered = len(crowd.answers) / crowd.load.tally.elapsed_s
    lab.no_errors(calm)
    lab.no_errors(after)
    others = [a.error for a in crowd.answers if a.status not in (200, 503) or "Retry-After" in a.error]
    lab.check("refused with 503 and Retry-After, or answered", not others, others[:3])
    possible = WORKERS / (ROWS * SLOW_ROW_S)
    lab.check("a capacity was measured", capacity > 0, f"{capacity:.0f} of {possible:.0f} requests/s")
    lab.at_least("offered", offered / capacity, "x capacity", 3.0)
    lab.at_least("goodput", len(answered) / crowd.load.tally.elapsed_s / capacity, "x capacity", GOODPUT)
    lab.at_most("refused, p99", refused[int(len(refused) * 0.99)] if refused else 0.0, "s", REFUSED_S)
    normal = next((a for a in after.answers if a.elapsed_s < 0.1 and not a.error), None)
    lab.at_most("normal again", normal.answered_at_s - ended_s if normal else 60.0, "s", NORMAL_S)


EXPERIMENT = Experiment(
    15,
    "three times as many requests as can be computed, for a minute",
    "fast 503 (p99 < 50 ms), goodput at least 90 % of capacity, normal again in 5 s",
    run,
    brokers=ANYWHERE,
)
