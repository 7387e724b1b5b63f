"""26: readers of the metrics that do not read; the file of the jobs that somebody else holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.experiments.hostile_clients import connect
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.trial import Trial

READERS, PAGES = 8, 400
PACE_S, HELD_S = 1.0, 2.0
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
    unaffected(lab, trial)


def on_jobs(lab: Lab) -> None:
    """Somebody locks the store of jobs and results: jobs wait or are refused, direct answers do not wait."""
    store = lab.stage.store()
    server = lab.serve_jobs(store)
    with lab.trial(server, strangers=True) as trial:
        with lab.jobs(server) as jobs:
            for _ in range(lab.times(1, long=10)):
                jobs.wait_for(lab.chance.randrange(10, 40))
                with closing(sqlite3.connect(store, isolation_level=None)) as holder:
                    holder.execute("BEGIN EXCLUSIVE")
                    trial.load.run_for(HELD_S)
            jobs.wait_for(20)
        lab.all_done(jobs)
    lab.check("refused jobs may come again", not set(jobs.refused) - {503} and not jobs.blunt, jobs.refused)
    unaffected(lab, trial)


def unaffected(lab: Lab, trial: Trial) -> None:
    """Nobody else saw an error, or waited."""
    lab.no_errors(trial)
    slowest_s = max(answer.elapsed_s for answer in trial.load.tally.answers)
    lab.at_most("slowest answer to the others", slowest_s, "s", PACE_S)


EXPERIMENT = Experiment(
    26,
    "readers of /metrics that take nothing; the store of jobs locked by somebody else",
    "serving is unaffected",
    run,
    brokers=ANYWHERE,
    on_jobs=on_jobs,
)
