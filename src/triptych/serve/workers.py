"""The workers that compute the models of a catalog, as settings describe them."""

from __future__ import annotations

import os
from collections.abc import Callable

from triptych.serve.catalog import Catalog
from triptych.serve.settings import Settings
from triptych.serve.supervise.pool import WorkerPool
from triptych.serve.supervise.spec import Event


def count_of(settings: Settings) -> int:
    """How many there are: one per core, unless settings say how many."""
    return settings.workers.count or len(os.sched_getaffinity(0))


def make_pool(
    catalog: Catalog, settings: Settings, size: int, on_event: Callable[[Event], None], max_in_flight: int = 1
) -> WorkerPool:
    """Workers, not started, that load the models of `catalog`."""
    workers, queue = settings.workers, settings.queue
    told = {
        "bundles": {str(model.folder): model.version for model in catalog.values()},
        "engine": workers.engine,
        "precision": workers.precision,
        "cache_precision": workers.cache_precision,
        "operators": workers.operators,
        "threads": workers.threads,
        "share_weights": workers.share_weights,
        "slots": workers.slots,
    }
    return WorkerPool(
        "triptych.serve.models:handler",
        told,
        size,
        start_timeout_s=workers.start_timeout_s,
        batch_timeout_s=workers.hang_timeout_s,
        max_restarts=workers.max_restarts,
        max_seconds=workers.max_seconds,
        max_in_flight=max_in_flight,
        stream_slots=workers.slots,
        max_waiting=queue.capacity,
        max_deliveries=queue.max_deliveries,
        nice=workers.nice,
        environment={name: str(workers.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        log=settings.log,
        on_event=on_event,
    )
