"""22: there is no room left for jobs."""

from __future__ import annotations

from triptych.serve.chaos.experiment import SQLITE, Experiment
from triptych.serve.chaos.lab import Lab

SIZE_BYTES = 200_000
DONE_S = 30.0


def run(lab: Lab) -> None:
    """The store reaches its size: jobs are 507, the direct lane serves, nothing that was accepted is torn."""
    server = lab.serve(f"jobs.size_bytes={SIZE_BYTES}", jobs=lab.stage.store())
    node = server.node_pid()
    with lab.trial(server, connections=4, strangers=True) as trial:
        with lab.jobs(server) as jobs:
            full = lab.wait_until(lambda: jobs.refused[507], timeout_s=30.0)
            trial.load.wait_for(40)
        lab.check("a full store says 507", full and set(jobs.refused) == {507}, dict(jobs.refused))
        jobs.finish(DONE_S * lab.stage.patience)
    lab.check("the node is the same", server.node_pid() == node, node)
    lab.no_errors(trial)


EXPERIMENT = Experiment(
    22,
    "the store of jobs is full",
    "507 for jobs; the direct lane serves; nothing is torn",
    run,
    brokers=SQLITE,
)
