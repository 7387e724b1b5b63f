"""A pool of worker processes: work goes to an idle one, and back to another if its worker dies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Literal

import msgspec

from triptych.errors import DeadlineExceeded, Draining, Overloaded, Poison, ServeError, WorkerDied
from triptych.serve.supervise.activity import Doing
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.link import Batch, WorkerLink, start_worker
from triptych.serve.supervise.spec import ChildSpec, Event, Exit, Shutdown
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.supervise.supervisor import Supervisor, ignore


class WorkerInfo(msgspec.Struct, frozen=True):
    """One worker, for readiness, metrics and people."""

    slot: int
    pid: int | None
    state: Literal["starting", "ready", "gone"]
    restarts: int
    in_flight: int
    streams: int


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
        self.name, self.size = name, size
        self._target, self._args, self._environment = target, args, environment
        self._start_timeout_s, self._batch_timeout_s = start_timeout_s, batch_timeout_s
        self._max_in_flight, self._stream_slots = max_in_flight, stream_slots
        self._max_waiting, self._max_deliveries, self._stream_buffer = (
            max_waiting,
            max_deliveries,
            stream_buffer,
        )
        self._on_event = on_event
        self._links: list[WorkerLink | None] = [None] * size
        self._ids = count(1)
        self._waiting_batches: deque[Batch] = deque()
        self._waiting_streams: deque[PieceStream] = deque()
        self._idle_waiters: deque[asyncio.Future[None]] = deque()
        self._end: ServeError | None = None  # why new work is refused, once it is
        self._changed = asyncio.Event()  # a worker became ready, or work was done
        self._watch: asyncio.Task[None] | None = None
        self._batches = self._payloads = self._deaths = self._hangs = self._redispatched = 0
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
        while self._ready() < self.size:
            if self._end is not None:
                raise self._end
            self._changed.clear()
            await self._changed.wait()

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """Have one batch answered: one answer per payload, in the same order.

        Args:
            deadline_s: latest moment for the answer, on the clock of `loop.time()`.

        Raises:
            WorkerDied: the worker died, or hung and was killed, while it computed this batch.
            DeadlineExceeded, Overloaded, Draining, SupervisorFailed: as their names say.
            TriptychError: the handler raised; the batch failed as a whole.
        """
        self._admit(self._waiting_batches)
        loop = asyncio.get_running_loop()
        batch = Batch(next(self._ids), payloads, loop.create_future())
        self._waiting_batches.append(batch)
        self._dispatch()
        timer = None if deadline_s is None else loop.call_at(deadline_s, self._expire, batch)
        try:
            return await batch.future
        finally:
            if timer is not None:
                timer.cancel()
            if not batch.future.done() or batch.future.cancelled():
                self._withdraw(batch)

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """The pieces of one stream's answer; `await stream.aclose()` ends it within one step.

        A stream whose worker dies starts again elsewhere; pieces that were already received are skipped.

        Raises:
            Overloaded, Draining: at once.
            DeadlineExceeded, Poison, Overloaded (a reader too slow), or what the handler failed it with:
                while iterating.
        """
        self._admit(self._waiting_streams)
        stream = PieceStream(next(self._ids), payload, buffer=self._stream_buffer, on_end=self._stream_ended)
        if deadline_s is not None:
            late = DeadlineExceeded("the stream's deadline passed", where=self.name)
            stream.timer = asyncio.get_running_loop().call_at(deadline_s, stream.end, late)
        self._waiting_streams.append(stream)
        self._dispatch()
        return stream

    async def idle(self) -> None:
        """Return once a ready worker has room for a batch, or the pool has ended; first come, first woken."""
        if self._end is not None or (self._room() and not self._idle_waiters):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._idle_waiters.append(waiter)
        await waiter

    async def ping(self, *, timeout_s: float = 1.0) -> dict[int, bool]:
        """Ask every worker for a sign of life: slot -> whether it is ready and answered in time."""
        asked = {link.slot: link.ping() for link in self._links if link and link.state == "ready"}
        if asked:
            await asyncio.wait(asked.values(), timeout=timeout_s)
        return {
            slot: slot in asked and asked[slot].done() and asked[slot].result() for slot in range(self.size)
        }

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
            )
            for slot, (link, child) in enumerate(
                zip(self._links, self._supervisor.which_children(), strict=True)
            )
        ]

    def statistics(self) -> PoolStatistics:
        """Counters and levels."""
        return PoolStatistics(
            batches=self._batches,
            payloads=self._payloads,
            deaths=self._deaths,
            hangs=self._hangs,
            redispatched=self._redispatched,
            restarts=self._supervisor.count_children().restarts,
            ready=self._ready(),
            waiting_batches=len(self._waiting_batches),
            waiting_streams=len(self._waiting_streams),
            streams=sum(len(link.streams) for link in self._links if link),
        )

    async def wait(self) -> Exit:
        """Return once the pool was stopped (code 0) or gave up (its SupervisorFailed)."""
        return await self._supervisor.wait()

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Refuse new work (`Draining`), let held work finish for `shutdown` seconds, stop the workers."""
        self._refuse(Draining("the workers are stopping", where=self.name))
        if shutdown != "brutal_kill":
            with suppress(TimeoutError):
                async with asyncio.timeout(shutdown if isinstance(shutdown, float | int) else None):
                    await self._quiet()
        end = await self._supervisor.stop("brutal_kill" if shutdown == "brutal_kill" else "infinity")
        if self._watch is not None:
            await self._watch
        return end

    # Work and workers

    async def _start_worker(self, slot: int) -> WorkerLink:
        def call(channel: int, activity: int) -> dict[str, Any]:
            return {"target": self._target, "args": self._args, "channel": channel, "activity": activity}

        link = self._links[slot] = await start_worker(
            self,
            slot,
            name=self.name,
            call=call,
            environment=self._environment,
            start_timeout_s=self._start_timeout_s,
            silence_timeout_s=self._batch_timeout_s,
        )
        return link

    def link_ready(self, link: WorkerLink) -> None:
        """A worker made its handler."""
        self._tell("ready", link)
        self._changed.set()
        self._dispatch()

    def link_free(self, link: WorkerLink) -> None:
        """A worker has room for more."""
        self._changed.set()
        self._dispatch()

    def link_gone(self, link: WorkerLink, doing: tuple[Doing, int], reason: str) -> None:
        """A worker is dead: blame the work it was at, hand all the rest to another."""
        self._deaths += 1
        if link.hung:
            self._hangs += 1
            self._tell("hung", link, reason)
        batches, link.batches = link.batches, {}
        streams, link.streams = link.streams, {}
        for batch in reversed(batches.values()):
            if batch.future.done():
                continue
            if doing == (Doing.BATCH, batch.id):
                batch.future.set_exception(
                    WorkerDied(
                        f"the worker ended by {reason} while it computed", where=f"{self.name} {link.slot}"
                    )
                )
            else:
                self._redispatched += 1
                self._tell("redispatched", link, f"batch {batch.id}")
                self._waiting_batches.appendleft(batch)
        for stream in reversed(streams.values()):
            self._restart_stream(link, stream, doing[0] is Doing.STEP or doing == (Doing.OPEN, stream.id))
        self._changed.set()
        self._dispatch()

    def _restart_stream(self, link: WorkerLink, stream: PieceStream, suspect: bool) -> None:
        stream.strikes += suspect
        if stream.strikes >= self._max_deliveries:
            stream.end(Poison(f"it ended its worker {stream.strikes} times in a row", where=self.name))
            return
        if stream.strikes >= 2:
            stream.slots = self._stream_slots  # alone from now on: no innocent stream dies with it again
        stream.restart()
        self._redispatched += 1
        self._tell("redispatched", link, f"stream {stream.id}")
        self._waiting_streams.appendleft(stream)

    def _dispatch(self) -> None:
        """Give waiting work to workers with room, then wake who waits for room."""
        while self._waiting_batches and (link := self._least_loaded()):
            batch = self._waiting_batches.popleft()
            self._batches += 1
            self._payloads += len(batch.payloads)
            link.submit(batch)
        while self._waiting_streams and (link := self._with_slots(self._waiting_streams[0].slots)):
            link.open_stream(self._waiting_streams.popleft())
        self._wake_idle()

    def _wake_idle(self) -> None:
        """Wake one waiter; the next one a turn of the loop later, if the first left room."""
        while self._idle_waiters and (self._room() or self._end is not None):
            waiter = self._idle_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                asyncio.get_running_loop().call_soon(self._wake_idle)
                return

    def _room(self) -> bool:
        return not self._waiting_batches and self._least_loaded() is not None

    def _ready(self) -> int:
        return sum(link is not None and link.state == "ready" for link in self._links)

    def _least_loaded(self) -> WorkerLink | None:
        links = [
            link
            for link in self._links
            if link and link.state == "ready" and len(link.batches) < self._max_in_flight
        ]
        return min(links, key=lambda link: (len(link.batches), len(link.streams)), default=None)

    def _with_slots(self, slots: int) -> WorkerLink | None:
        free = self._stream_slots - slots
        links = [link for link in self._links if link and link.state == "ready" and link.slots <= free]
        return min(links, key=lambda link: link.slots, default=None)

    # Refusing, expiring, ending

    def _admit(self, waiting: deque[Any]) -> None:
        if self._end is not None:
            raise self._end
        if len(waiting) >= self._max_waiting:
            raise Overloaded(
                f"{len(waiting)} are waiting for a worker", where=self.name, remedy="try again later"
            )

    def _expire(self, batch: Batch) -> None:
        if not batch.future.done():
            batch.future.set_exception(DeadlineExceeded("the batch's deadline passed", where=self.name))
            self._withdraw(batch)

    def _withdraw(self, batch: Batch) -> None:
        if batch in self._waiting_batches:
            self._waiting_batches.remove(batch)
            self._dispatch()

    def _stream_ended(self, stream: PieceStream) -> None:
        if stream in self._waiting_streams:
            self._waiting_streams.remove(stream)
        for link in self._links:
            if link is not None:
                link.close_stream(stream)
        self._changed.set()

    async def _quiet(self) -> None:
        while (
            self._waiting_batches
            or self._waiting_streams
            or any(link.batches or link.streams for link in self._links if link)
        ):
            self._changed.clear()
            await self._changed.wait()

    async def _watch_supervisor(self) -> None:
        """When the supervisor has ended, for whatever reason, nothing may be left waiting."""
        end = await self._supervisor.wait()
        if isinstance(end.exception, ServeError):
            self._refuse(end.exception)
        error = self._end or Draining("the workers have ended", where=self.name)
        for batch in self._waiting_batches:
            if not batch.future.done():
                batch.future.set_exception(error)
        self._waiting_batches.clear()
        for stream in list(self._waiting_streams):
            stream.end(error)
        self._changed.set()

    def _refuse(self, error: ServeError) -> None:
        self._end = error
        self._wake_idle()

    def _tell(self, kind: str, link: WorkerLink, reason: str = "") -> None:
        self._on_event(Event(kind, self.name, f"worker {link.slot}", link.pid, reason))
