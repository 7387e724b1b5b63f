"""24: a worker reaches its memory limit."""

from __future__ import annotations

import resource

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.lab import Lab

SPARE_BYTES = 512 * 2**20


def run(lab: Lab) -> None:
    """An input on which the model takes all the memory it may have: it alone fails, in its worker alone."""
    server = lab.serve()
    for pid in server.worker_pids():
        limit = process.address_space_bytes(pid) + SPARE_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    with lab.trial(server) as trial:
        for _ in range(lab.times(1, long=10)):
            trial.load.wait_for(lab.chance.randrange(20, 60))
            answer = trial.ask(lab.harmful(Fault.HOG))
            lab.check("the hungry input fails", answer.status == 500, answer.error)
        trial.load.wait_for(60)
    lab.no_errors(trial)
    limited = [process.rss_bytes(pid) for pid in server.worker_pids()]
    lab.check("the workers are small again", max(limited) < SPARE_BYTES, f"{max(limited) >> 20} MiB")


EXPERIMENT = Experiment(
    24, "a worker reaches its memory limit", "that input fails, or that worker is replaced; nobody else", run
)
