"""The experiments, one file each."""

from __future__ import annotations

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments import (
    crash_loop,
    deadly_input,
    drained,
    process_killed,
    raising_input,
    worker_hung,
    worker_killed,
)

MODULES = (
    worker_killed,
    worker_hung,
    deadly_input,
    raising_input,
    crash_loop,
    process_killed,
    drained,
)
EXPERIMENTS: dict[int, Experiment] = {module.EXPERIMENT.number: module.EXPERIMENT for module in MODULES}
