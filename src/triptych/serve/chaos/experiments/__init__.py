"""The experiments, one file each."""

from __future__ import annotations

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments import (
    crash_loop,
    damaged_bundle,
    deadly_input,
    disconnects,
    disk_full,
    drained,
    hostile_clients,
    memory_limit,
    overload,
    power_cut,
    process_killed,
    raising_batch,
    raising_input,
    retry_storm,
    scarce,
    slow_consumer,
    slow_metrics,
    soak,
    swapped,
    torn_reply,
    worker_hung,
    worker_killed,
)

MODULES = (
    worker_killed,
    torn_reply,
    worker_hung,
    deadly_input,
    raising_input,
    crash_loop,
    process_killed,
    raising_batch,
    slow_consumer,
    overload,
    retry_storm,
    disconnects,
    hostile_clients,
    drained,
    swapped,
    damaged_bundle,
    disk_full,
    power_cut,
    memory_limit,
    scarce,
    slow_metrics,
    soak,
)
EXPERIMENTS: dict[int, Experiment] = {module.EXPERIMENT.number: module.EXPERIMENT for module in MODULES}
