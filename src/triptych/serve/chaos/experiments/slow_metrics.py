"""26: readers of the metrics that do not read."""

from __future__ import annotations

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments.hostile_clients import connect
from triptych.serve.chaos.lab import Lab

READERS, PAGES = 8, 400
PACE_S = 1.0
ASK = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def run(lab: Lab) -> None:
    """They ask for page after page and take nothing; serving does not notice."""
    server = lab.shared()
    with lab.trial(server, strangers=True) as trial:
        trial.load.wait_for(20)
        for _ in range(lab.times(1, long=10)):
            readers = [connect(server, receive_bytes=4096) for _ in range(READERS)]
            for reader in readers:
                reader.setblocking(False)
                reader.send(ASK * PAGES)
            trial.load.run_for(1.0)
            for reader in readers:
                reader.close()
        trial.load.wait_for(40)
    lab.no_errors(trial)
    slowest_s = max(answer.elapsed_s for answer in trial.load.tally.answers)
    lab.at_most("slowest answer to the others", slowest_s, "s", PACE_S)


EXPERIMENT = Experiment(26, "readers of /metrics that take nothing", "serving is unaffected", run)
