"""23: everything is killed at once, and the end of the store's log is damaged."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import SQLITE, Experiment
from triptych.serve.chaos.lab import Lab

DONE_S = 30.0
TORN = bytes(range(256)) * 20  # what a write that was cut off may leave behind


def run(lab: Lab) -> None:
    """SIGKILL root, node and workers while jobs come in; every job that was accepted is there afterwards."""
    for _ in range(lab.times(1, long=10)):
        store = lab.stage.store()
        server = lab.serve(jobs=store)
        with lab.jobs(server) as jobs:
            jobs.wait_for(lab.chance.randrange(30, 90))
            tree = [server.pid, *process.children(server.pid)]
            for pid in tree:
                os.kill(pid, signal.SIGKILL)
            left = process.wait_gone(tree, 5.0)
            lab.check("everything is dead", not left, left)
            lab.ended(server, planned=False)
            with Path(f"{store}-wal").open("ab") as log:
                log.write(TORN)
            jobs.server = lab.serve(jobs=store)
            jobs.wait_for(20)
        jobs.finish(DONE_S * lab.stage.patience)


EXPERIMENT = Experiment(
    23,
    "a power cut: everything is killed, the end of the store's log is damaged",
    "every job that was answered with 202 is there, and done",
    run,
    brokers=SQLITE,
)
