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


def on_jobs(lab: Lab) -> None:
    """It ends with 0 while jobs come in; what it had accepted is done by whoever follows it."""
    for _ in range(lab.times(1, long=5)):
        store = lab.stage.store()
        server = lab.serve_jobs(store)
        with lab.jobs(server) as jobs:
            jobs.wait_for(lab.chance.randrange(20, 60))
            server.send_signal(signal.SIGTERM)
            code = lab.ended(server, planned=True)
            lab.check("it ends with 0", code == 0, f"exit code {code}")
            lab.take_over(jobs, store)
        lab.all_done(jobs)


def on_machines(lab: Lab) -> None:
    """A worker ends with 0 when it has done what it took, and no client notices; then the gateway."""
    server = lab.machines()
    for _ in range(lab.times(1, long=5)):
        with lab.trial(server) as trial:
            trial.load.wait_for(lab.chance.randrange(20, 80))
            server.add().until_up()
            code = server.dismiss(next(machine for machine in server.machines if machine.is_running()))
            lab.check("the worker ends with 0", code == 0, f"exit code {code}")
            trial.load.wait_for(40)
        lab.no_errors(trial)
    run(lab)


EXPERIMENT = Experiment(
    19,
    "SIGTERM under load",
    "drained: everyone let in is answered, exit code 0",
    run,
    on_jobs=on_jobs,
    on_machines=on_machines,
)
