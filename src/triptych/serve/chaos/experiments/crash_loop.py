"""6: workers that cannot start."""

from __future__ import annotations

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.faults import CRASH_AT_START
from triptych.serve.chaos.lab import Lab


def run(lab: Lab) -> None:
    """Every worker ends while it starts: the server gives up and says why."""
    code, said = lab.run_serve(lab.stage.bundles[0], "--port", "0", sabotage=CRASH_AT_START)
    restarts = said.count("restarted")
    lab.check("the server gives up", code != 0, f"exit code {code}")
    lab.check("after restarts", restarts >= 3, f"{restarts} restarts")
    lab.check("its log has the cause", "sabotage: this worker cannot start" in said, said[-300:])
    lab.check("it escalated", "escalated" in said, said.count("escalated"))


EXPERIMENT = Experiment(
    6, "workers crash at their start", "back-off, then escalation: exit code above 0, with the cause", run
)
