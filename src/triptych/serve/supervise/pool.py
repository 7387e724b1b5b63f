"""A pool of worker processes: work goes to an idle one, and back to another if its worker dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec

from triptych.errors import Draining, ServeError
from triptych.serve.supervise.dispatch import Dispatcher
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.link import WorkerLink, start_worker
from triptych.serve.supervise.log_lines import LogKind
from triptych.serve.supervise.spec import ChildSpec, Event, Exit, Shutdown
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.supervise.supervisor import Supervisor, ignore


class WorkerInfo(msgspec.Struct, frozen=True):
    """One worker, for readiness, metrics and people.

    Args:
        reason: why it refuses to start, if it does.
    """

    slot: int
    pid: int | None
    state: Literal["starting", "ready", "gone"]
    restarts: int
    in_flight: int
    streams: int
    reason: str = ""


class PoolStatistics(msgspec.Struct, frozen=True):
    """Counters since start (`batches` to `restarts`) and levels now (the rest)."""

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
        nice: by how much the workers give way to others for a core, above all to this process: 0 to 19.
        environment: variables set in the workers.
        log: how their log lines look; as Python has it if None.
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
        nice: int = 0,
        environment: Mapping[str, str] | None = None,
        log: LogKind | None = None,
        on_event: Callable[[Event], None] = ignore,
    ) -> None:
        self.name, self.size = name, size
        self._target, self._args, self._nice = target, args, nice
        self._environment, self._log = environment, log
        self._start_timeout_s, self._batch_timeout_s = start_timeout_s, batch_timeout_s
        self._dispatcher = Dispatcher(
            name,
            size,
            max_in_flight=max_in_flight,
            stream_slots=stream_slots,
            max_waiting=max_waiting,
            max_deliveries=max_deliveries,
            stream_buffer=stream_buffer,
            on_event=on_event,
        )
        self._watch: asyncio.Task[None] | None = None
        specs = [ChildSpec(f"worker {slot}", partial(self._start_worker, slot)) for slot in range(size)]
        self._supervisor = Supervisor(
            specs, name=name, max_restarts=max_restarts, max_seconds=max_seconds, on_event=on_event
        )

    @property
    def pid(self) -> None:
        """None: the pool has no process of its own, its workers have."""
        return None

    async def start(self) -> None:
        """Start the workers side by side and return once all are ready.

        Raises: SupervisorFailed, with the cause, if they die faster than the intensity allows.
        """
        await self._supervisor.start()
        self._watch = asyncio.create_task(self._watch_supervisor(), name=f"watch {self.name}")
        work = self._dispatcher
        while work.ready < self.size:
            if work.refusal is not None:
                raise work.refusal
            work.changed.clear()
            await work.changed.wait()

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """Have one batch answered: one answer per payload, in the same order.

        Args:
            deadline_s: latest moment for the answer, on the clock of `loop.time()`.

        Raises:
            WorkerDied: the worker died, or hung and was killed, while it computed this batch.
            DeadlineExceeded, Overloaded, Draining, SupervisorFailed: as their names say.
            TriptychError: the handler raised; the batch failed as a whole.
        """
        return await self._dispatcher.run(payloads, deadline_s=deadline_s)

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """The pieces of one stream's answer; `await stream.aclose()` ends it within one step.

        A stream whose worker dies starts again elsewhere; pieces that were already received are skipped.

        Raises:
            Overloaded, Draining: at once.
            DeadlineExceeded, Poison, Overloaded (a reader too slow), or what the handler failed it with:
                while iterating.
        """
        return self._dispatcher.stream(payload, deadline_s=deadline_s)

    async def idle(self) -> None:
        """Return once a ready worker has room for a batch, or the pool has ended; first come, first woken."""
        await self._dispatcher.idle()

    async def lost(self) -> None:
        """Return once no worker is ready, and every one refuses to start."""
        await self._dispatcher.lost()

    async def probe(self, payloads: list[bytes], *, timeout_s: float = 1.0) -> dict[int, str]:
        """Have every ready worker answer one real batch of its own: slot -> what became of it.

        That is `ok`; `failed` if an answer is a failure; `late` if it did not come in time (it is not asked
        again before it has come); or else the worker's state, `starting` or `gone`.
        """
        return await self._dispatcher.probe(payloads, timeout_s=timeout_s)

    def workers(self) -> list[WorkerInfo]:
        """Every slot's present worker."""
        return [
            WorkerInfo(
                slot=slot,
                pid=link.pid if link and link.state != "gone" else None,
                state=link.state if link else "gone",
                restarts=child.restarts,
                in_flight=len(link.batches) if link else 0,
                streams=len(link.streams) if link else 0,
                reason=link.refusal if link else "",
            )
            for slot, (link, child) in enumerate(
                zip(self._dispatcher.links, self._supervisor.which_children(), strict=True)
            )
        ]

    def statistics(self) -> PoolStatistics:
        """Counters and levels."""
        work = self._dispatcher
        return PoolStatistics(
            batches=work.batches,
            payloads=work.payloads,
            deaths=work.deaths,
            hangs=work.hangs,
            redispatched=work.redispatched,
            restarts=self._supervisor.count_children().restarts,
            ready=work.ready,
            waiting_batches=len(work.waiting_batches),
            waiting_streams=len(work.waiting_streams),
            streams=sum(len(link.streams) for link in work.links if link),
        )

    async def wait(self) -> Exit:
        """Return once the pool was stopped (code 0) or gave up (its SupervisorFailed)."""
        return await self._supervisor.wait()

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Refuse new work (`Draining`), let held work finish for `shutdown` seconds, stop the workers."""
        self._dispatcher.refuse(Draining("the workers are stopping", where=self.name))
        if shutdown != "brutal_kill":
            try:
                async with asyncio.timeout(shutdown if isinstance(shutdown, float | int) else None):
                    await self._dispatcher.quiet()
            except TimeoutError:
                shutdown = "brutal_kill"
        end = await self._supervisor.stop("brutal_kill" if shutdown == "brutal_kill" else "infinity")
        if self._watch is not None:
            await self._watch
        return end

    async def _start_worker(self, slot: int) -> WorkerLink:
        def call(channel: int, activity: int) -> dict[str, Any]:
            return {
                "target": self._target,
                "args": self._args,
                "channel": channel,
                "activity": activity,
                "nice": self._nice,
            }

        before = self._dispatcher.links[slot]
        link = self._dispatcher.links[slot] = await start_worker(
            self._dispatcher,
            slot,
            name=self.name,
            call=call,
            environment=self._environment,
            log=self._log,
            start_timeout_s=self._start_timeout_s,
            silence_timeout_s=self._batch_timeout_s,
        )
        if before is not None:
            link.proven, link.refusal = before.proven, before.refusal
        return link

    async def _watch_supervisor(self) -> None:
        """When the supervisor has ended, for whatever reason, nothing may be left waiting."""
        end = await self._supervisor.wait()
        if isinstance(end.exception, ServeError):
            self._dispatcher.refuse(end.exception)
        self._dispatcher.abandon(
            self._dispatcher.refusal or Draining("the workers have ended", where=self.name)
        )
