"""A worker machine's process: keeps the pool of worker processes, and its connection to RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from triptych.serve.catalog import Catalog
from triptych.serve.fleet import self_test
from triptych.serve.logs import log_event, start_logging
from triptych.serve.remote.service import WorkerService
from triptych.serve.settings import Settings
from triptych.serve.supervise.pool import WorkerPool
from triptych.serve.workers import count_of, make_pool

AHEAD = 2  # batches taken for each process: one is computed, the next waits beside it

log = logging.getLogger("triptych.serve")


def work(bundles: Sequence[Path], settings: Settings, announce: Callable[[], None]) -> int:
    """Work for the gateways at `settings.jobs.broker` until SIGTERM or SIGINT; returns the exit code.

    Args:
        announce: called once the processes have proved themselves and the connection is up.

    Raises:
        BundleError: a bundle is missing or damaged.
        ConfigError: two have one name.
        ConflictError, SupervisorFailed: the processes could not start, or failed their test.
    """
    start_logging(settings.log)
    catalog = Catalog.checked([folder.resolve() for folder in bundles])
    return uvloop.run(_work(catalog, settings, announce))


async def _work(catalog: Catalog, settings: Settings, announce: Callable[[], None]) -> int:
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    stopping = asyncio.create_task(asked_to_stop.wait())
    size = count_of(settings)
    pool = make_pool(catalog, settings, size, log_event)
    serving = asyncio.create_task(_serve(catalog, settings, pool, size, announce))
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        stopping.cancel()
        await pool.stop("brutal_kill")
        return serving.result()
    log.info("draining: no new work, %g s to finish what was taken", settings.drain.shutdown_s)
    serving.cancel()
    await asyncio.wait([serving])
    await pool.stop(settings.drain.shutdown_s)
    return 0


async def _serve(
    catalog: Catalog, settings: Settings, pool: WorkerPool, size: int, announce: Callable[[], None]
) -> int:
    """Serve until cancelled, then finish what was taken; 1 if the pool gave up."""
    await pool.start()
    await self_test(pool, catalog)
    service = WorkerService(
        settings.jobs.broker, catalog, pool, batches=AHEAD * size, texts=settings.workers.slots * size
    )
    try:
        await service.start()
        await service.link.wait_up()
        announce()
        end = await pool.wait()
        log.critical("the worker gives up: %s", end.reason)
        return 1
    finally:
        await service.close(settings.drain.shutdown_s)
