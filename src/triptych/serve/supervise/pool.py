"""A pool of worker processes: work goes to an idle one, and back to another if its worker dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

import msgspec

from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.spec import Event, Exit, Shutdown
from triptych.serve.supervise.supervisor import ignore


class WorkerInfo(msgspec.Struct, frozen=True):
    """One worker, for readiness, metrics and people."""

    slot: int
    pid: int | None
    state: Literal["starting", "ready", "gone"]
    restarts: int
    in_flight: int
    streams: int


class PoolStatistics(msgspec.Struct, frozen=True):
    """Counters since start (batches, payloads, deaths, hangs, redispatched) and levels now (the rest)."""

    batches: int
    payloads: int
    deaths: int
    hangs: int
    redispatched: int
    restarts: int
    ready: int
    waiting_batches: int
    waiting_streams: int
    streams: int


class WorkerPool:
    """`size` supervised processes that run the handler made by `target(args)`; is itself a `Child`.

    Args:
        target: `package.module:factory` of a `WorkHandler`, called in the worker with `args`.
        args: anything msgpack can carry.
        size: number of worker processes.
        name: how events and process titles call the pool.
        start_timeout_s: a worker that is not ready by then is killed (a charged death).
        batch_timeout_s: a worker that holds work and says nothing for this long is killed.
        max_restarts, max_seconds: restart intensity of the workers that die without work to blame.
        max_in_flight: batches a worker may hold; 2 hides the way there and back, 1 keeps batches larger.
        stream_slots: streams a worker may hold.
        max_waiting: batches, and streams, that may wait for a worker; more is `Overloaded`.
        max_deliveries: a stream that killed its worker this often without a new piece is `Poison`.
        stream_buffer: pieces a slow reader may leave unread before its stream is failed.
        environment: variables set in the workers.
        on_event: called with every `Event`.
    """

    def __init__(
        self,
        target: str,
        args: Any = None,
        size: int = 1,
        *,
        name: str = "workers",
        start_timeout_s: float = 60.0,
        batch_timeout_s: float = 30.0,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        max_in_flight: int = 1,
        stream_slots: int = 16,
        max_waiting: int = 1024,
        max_deliveries: int = 3,
        stream_buffer: int = 4096,
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[Event], None] = ignore,
    ) -> None:
        raise NotImplementedError

    @property
    def pid(self) -> None:
        """None: the pool has no process of its own, its workers have."""
        return None

    async def start(self) -> None:
        """Start the workers side by side and return once all are ready.

        Raises: SupervisorFailed, with the cause, if they die faster than the intensity allows.
        """

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """Have one batch answered: one answer per payload, in the same order.

        Args:
            deadline_s: latest moment for the answer, on the clock of `loop.time()`.

        Raises:
            WorkerDied: the worker died, or hung and was killed, while it computed this batch.
            DeadlineExceeded, Overloaded, Draining: as their names say.
            TriptychError: the handler raised; the batch failed as a whole.
        """
        raise NotImplementedError

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> AsyncIterator[bytes]:
        """The pieces of one stream's answer, as a `PieceStream`; `await stream.aclose()` ends it within one step.

        A stream whose worker dies starts again elsewhere; pieces that were already delivered are skipped.

        Raises (while iterating): Overloaded, DeadlineExceeded, Poison, Draining, or what the handler failed it with.
        """
        raise NotImplementedError

    async def idle(self) -> None:
        """Return once a ready worker has room for a batch; several callers are woken in the order they came."""

    async def ping(self, *, timeout_s: float = 1.0) -> dict[int, bool]:
        """Ask every worker for a sign of life: slot -> whether it answered within `timeout_s`."""
        raise NotImplementedError

    def workers(self) -> list[WorkerInfo]:
        """Every slot's present worker."""
        raise NotImplementedError

    def statistics(self) -> PoolStatistics:
        """Counters and levels."""
        raise NotImplementedError

    async def wait(self) -> Exit:
        """Return once the pool was stopped (code 0) or gave up (its SupervisorFailed)."""
        raise NotImplementedError

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Refuse new work (`Draining`), let held work finish for at most `shutdown` seconds, then stop the workers."""
        raise NotImplementedError
