"""A worker machine's process: keeps the pool of worker processes, and its connection to RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import uvloop

from triptych.errors import ServeError
from triptych.serve.catalog import Catalog
from triptych.serve.fleet import self_test
from triptych.serve.logs import log_event
from triptych.serve.remote.service import WorkerService
from triptych.serve.root import SAME_SIGNAL_S
from triptych.serve.settings import Settings
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.log_lines import start_logging
from triptych.serve.supervise.pool import WorkerPool
from triptych.serve.way import try_way
from triptych.serve.work import FingerprintWork
from triptych.serve.workers import count_of, make_pool

AHEAD = 2  # batches taken for each process: one is computed, the next waits beside it
WAY_DIGITS = 12

log = logging.getLogger("triptych.serve")


def work(bundles: Sequence[Path], settings: Settings, announce: Callable[[], None]) -> int:
    """Work for the gateways at `settings.jobs.broker` until SIGTERM or SIGINT; returns the exit code.

    Args:
        announce: called once the processes have proved themselves and the connection is up.

    Raises:
        BundleError: a bundle is missing or damaged.
        ConfigError: two have one name, or one cannot be computed as asked for.
        ConflictError, SupervisorFailed: the processes could not start, or failed their test.
    """
    start_logging(settings.log)
    catalog = Catalog.checked([folder.resolve() for folder in bundles])
    return uvloop.run(_work(catalog, settings, announce))


async def _work(catalog: Catalog, settings: Settings, announce: Callable[[], None]) -> int:
    """The first signal drains, the second stops now."""
    asked_to_stop, told_again = asyncio.Event(), asyncio.Event()

    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if not asked_to_stop.is_set():
            loop.call_later(SAME_SIGNAL_S, again.set)
            asked_to_stop.set()
        elif again.is_set():
            told_again.set()

    again = asyncio.Event()  # a further signal is another one
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if not await try_way([str(model.folder) for model in catalog.values()], settings, asked_to_stop):
        return 0
    pool = make_pool(catalog, settings, count_of(settings), log_event)
    serving = asyncio.create_task(_serve(catalog, settings, pool, announce))
    stopping = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        log.info("draining: no new work, %g s to finish what was taken", settings.drain.shutdown_s)
        serving.cancel()
        at_once = asyncio.create_task(told_again.wait())
        await asyncio.wait([serving, at_once], return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
    is_good = serving.cancelled()
    await pool.stop(settings.drain.shutdown_s if is_good else "brutal_kill")
    return 0 if is_good else serving.result() if serving.done() else 1


async def _serve(catalog: Catalog, settings: Settings, pool: WorkerPool, announce: Callable[[], None]) -> int:
    """Serve until cancelled, then finish what was taken; 1 if it cannot go on."""
    await pool.start()
    await self_test(pool, catalog)
    service = WorkerService(
        settings.jobs.broker,
        catalog,
        await fingerprints(pool, catalog),
        pool,
        batches=AHEAD * pool.size,
        texts=settings.workers.slots * pool.size,
    )
    patience_s = settings.drain.shutdown_s
    try:
        await service.start()
        await service.announced()
        announce()
        ends = [asyncio.create_task(pool.wait()), asyncio.create_task(service.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        log.critical("the worker gives up: its processes, or its announcements, have ended")
        patience_s = 0.0
        return 1
    finally:
        await service.close(patience_s)


async def fingerprints(pool: WorkerPool, catalog: Catalog) -> dict[str, str]:
    """How this machine computes each model, see `fingerprint`.

    Raises: ServeError if it does not say.
    """
    encode = msgspec.msgpack.Encoder().encode
    found = {}
    for name in catalog:
        (answer,) = await pool.run([encode(FingerprintWork(name))])
        if isinstance(answer, Failure):
            raise ServeError(f"could not compute a trial batch: {answer.problem}", where=name)
        found[name] = answer.hex()[:WAY_DIGITS]
    return found
