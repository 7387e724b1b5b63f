"""The routes an operator's tools call: health, workers, metrics."""

from __future__ import annotations

import asyncio
import logging
import time

import msgspec

from triptych import __version__
from triptych.errors import ServeError
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.refusal import encode
from triptych.serve.work import JSON

PATIENCE_S = 1.0

log = logging.getLogger(__name__)


async def live(exchange: Exchange) -> None:
    """`GET /livez`: the node's event loop turns."""
    await exchange.answer(200, encode({"live": True}), JSON, [])


async def ready(exchange: Exchange) -> None:
    """`GET /readyz`: a worker computed a real batch of every model just now; else 503, as while draining.

    Each worker is asked, and the body says what each did: `ok`, `failed`, `late`, `starting` or `gone`. One
    that did is enough: whoever sends requests here gets answers, and a replacement is on its way, or
    `reasons` says why it refuses to start.
    """
    gateway = exchange.gateway
    found = await gateway.probe()
    is_ready = gateway.is_ready(found)
    body = {
        "ready": is_ready,
        "draining": gateway.is_draining,
        "workers": {str(slot): state for slot, state in found.items()},
        "reasons": {str(worker.slot): worker.reason for worker in gateway.pool.workers() if worker.reason},
    }
    await exchange.answer(200 if is_ready else 503, encode(body), JSON, [])


async def health(exchange: Exchange) -> None:
    """`GET /healthz`: everything there is to know, for people."""
    gateway = exchange.gateway
    body = {
        "version": __version__,
        "uptime_s": round(time.monotonic() - gateway.started_at_s, 3),
        "draining": gateway.is_draining,
        "models": {model.name: model.version for model in gateway.catalog.values()},
        "queue": {"depth": gateway.queue_depth, "capacity": gateway.settings.queue.capacity},
        "workers": msgspec.to_builtins(gateway.pool.workers()),
    }
    await exchange.answer(200, encode(body), JSON, [])


async def workers(exchange: Exchange) -> None:
    """`GET /v2/workers`: pid, state, restarts and load of every worker process."""
    await exchange.answer(200, encode({"workers": exchange.gateway.pool.workers()}), JSON, [])


async def metrics(exchange: Exchange) -> None:
    """`GET /metrics`: everything that is counted, in Prometheus' text format."""
    page, lane = exchange.gateway.metrics, exchange.gateway.jobs
    if lane is not None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                page.note_jobs(await lane.statistics())
        except (ServeError, TimeoutError) as error:  # the rest of the page is wanted then more than ever
            log.error("jobs cannot be counted: %s", error or "their store does not answer")
    await exchange.answer(200, page.page(), page.content_type, [])
