"""19: SIGTERM under load."""

from __future__ import annotations

import signal
import time

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.lab import Lab

DRAIN_DELAY_S = 0.2


def run(lab: Lab) -> None:
    """Everyone who was let in is answered, then the server ends with 0."""
    for _ in range(lab.times(1, long=5)):
        server = lab.serve(f"drain.delay_s={DRAIN_DELAY_S}")
        with lab.trial(server, stops=True) as trial:
            trial.load.wait_for(lab.chance.randrange(20, 80))
            stopped_s = time.monotonic()
            trial.watch.expect(False)
            server.send_signal(signal.SIGTERM)
            trial.load.join()  # each client goes on until it is refused a connection
            code = lab.ended(server, planned=True)
        took_s = time.monotonic() - stopped_s
        lab.check("it ends with 0", code == 0, f"exit code {code}, {took_s:.2f} s later")
        lab.no_errors(trial)


EXPERIMENT = Experiment(19, "SIGTERM under load", "drained: everyone let in is answered, exit code 0", run)
