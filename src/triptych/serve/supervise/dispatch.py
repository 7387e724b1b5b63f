"""Who computes what: work that waits, workers with room, and a worker's death blamed on the right work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from triptych.errors import DeadlineExceeded, Overloaded, Poison, ServeError, WorkerDied
from triptych.serve.supervise.activity import Doing
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.link import Batch, WorkerLink
from triptych.serve.supervise.spec import Event, tell
from triptych.serve.supervise.stream import PieceStream


class Dispatcher:
    """Gives batches and streams to workers with room, first come first served; the `Owner` of the links.

    Attributes:
        links: the present worker of every slot.
        batches, payloads, deaths, hangs, redispatched: counters since the beginning.
        changed: set when a worker became ready or left, and when work was done.
        refusal: why new work is refused, once it is.
    """

    def __init__(
        self,
        name: str,
        size: int,
        *,
        max_in_flight: int,
        stream_slots: int,
        max_waiting: int,
        max_deliveries: int,
        stream_buffer: int,
        on_event: Callable[[Event], None],
    ) -> None:
        self.name = name
        self.links: list[WorkerLink | None] = [None] * size
        self.batches = self.payloads = self.deaths = self.hangs = self.redispatched = 0
        self.changed = asyncio.Event()
        self.refusal: ServeError | None = None
        self.waiting_batches: deque[Batch] = deque()
        self.waiting_streams: deque[PieceStream] = deque()
        self._max_in_flight, self._stream_slots = max_in_flight, stream_slots
        self._max_waiting, self._max_deliveries, self._stream_buffer = (
            max_waiting,
            max_deliveries,
            stream_buffer,
        )
        self._on_event = on_event
        self._ids = count(1)
        self._idle_waiters: deque[asyncio.Future[None]] = deque()

    @property
    def ready(self) -> int:
        """How many workers are ready."""
        return sum(link is not None and link.state == "ready" for link in self.links)

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """See `WorkerPool.run`."""
        self._admit(self.waiting_batches)
        loop = asyncio.get_running_loop()
        batch = Batch(next(self._ids), payloads, loop.create_future())
        self.waiting_batches.append(batch)
        self._dispatch()
        timer = None if deadline_s is None else loop.call_at(deadline_s, self._expire, batch)
        try:
            return await batch.future
        finally:
            if timer is not None:
                timer.cancel()
            if not batch.future.done() or batch.future.cancelled():
                self._withdraw(batch)

    async def probe(self, payloads: list[bytes], *, timeout_s: float) -> dict[int, str]:
        """See `WorkerPool.probe`."""
        asked: dict[int, asyncio.Future[list[bytes | Failure]]] = {}
        for link in self.links:
            if link is not None and link.state == "ready":
                batch = link.pinned()
                if batch is None:
                    future = asyncio.get_running_loop().create_future()
                    future.add_done_callback(lambda done: done.cancelled() or done.exception())
                    batch = Batch(next(self._ids), payloads, future, pinned=True)
                    link.submit(batch)
                asked[link.slot] = batch.future
        if asked:
            await asyncio.wait(asked.values(), timeout=timeout_s)
        return {
            slot: outcome(asked[slot]) if slot in asked else link.state if link else "gone"
            for slot, link in enumerate(self.links)
        }

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """See `WorkerPool.stream`."""
        self._admit(self.waiting_streams)
        stream = PieceStream(next(self._ids), payload, buffer=self._stream_buffer, on_end=self._stream_ended)
        if deadline_s is not None:
            late = DeadlineExceeded("the stream's deadline passed", where=self.name)
            stream.timer = asyncio.get_running_loop().call_at(deadline_s, stream.end, late)
        self.waiting_streams.append(stream)
        self._dispatch()
        return stream

    async def idle(self) -> None:
        """See `WorkerPool.idle`."""
        if self.refusal is not None or (self._room() and not self._idle_waiters):
            return
        waiter = asyncio.get_running_loop().create_future()
        self._idle_waiters.append(waiter)
        await waiter

    async def quiet(self) -> None:
        """Return once no work waits and no worker holds any."""
        while (
            self.waiting_batches
            or self.waiting_streams
            or any(link.batches or link.streams for link in self.links if link)
        ):
            self.changed.clear()
            await self.changed.wait()

    async def lost(self) -> None:
        """See `WorkerPool.lost`."""
        while not all(link is not None and link.state != "ready" and link.refusal for link in self.links):
            self.changed.clear()
            await self.changed.wait()

    def refuse(self, error: ServeError) -> None:
        """Take no new work from now on."""
        self.refusal = error
        self._wake_idle()

    def abandon(self, error: ServeError) -> None:
        """The workers have ended: nothing may be left waiting."""
        for batch in self.waiting_batches:
            if not batch.future.done():
                batch.future.set_exception(error)
        self.waiting_batches.clear()
        for stream in list(self.waiting_streams):
            stream.end(error)
        self.changed.set()

    def link_ready(self, link: WorkerLink) -> None:
        """A worker made its handler."""
        self._tell("ready", link)
        self.changed.set()
        self._dispatch()

    def link_free(self, link: WorkerLink) -> None:
        """A worker has room for more."""
        self.changed.set()
        self._dispatch()

    def link_gone(self, link: WorkerLink, doing: tuple[Doing, int], reason: str) -> None:
        """A worker is dead: blame the work it was at, hand all the rest to another."""
        self.deaths += 1
        if link.hung:
            self.hangs += 1
            self._tell("hung", link, reason)
        batches, link.batches = link.batches, {}
        streams, link.streams = link.streams, {}
        for batch in reversed(batches.values()):
            if batch.pinned:
                batch.future.cancel()
            if batch.future.done():
                continue
            if doing == (Doing.BATCH, batch.id):
                batch.future.set_exception(
                    WorkerDied(
                        f"the worker ended by {reason} while it computed", where=f"{self.name} {link.slot}"
                    )
                )
            else:
                self.redispatched += 1
                self._tell("redispatched", link, f"batch {batch.id}")
                self.waiting_batches.appendleft(batch)
        for stream in reversed(streams.values()):
            self._restart_stream(link, stream, doing[0] is Doing.STEP or doing == (Doing.OPEN, stream.id))
        self.changed.set()
        self._dispatch()

    def _restart_stream(self, link: WorkerLink, stream: PieceStream, suspect: bool) -> None:
        stream.strikes += suspect
        if stream.strikes >= self._max_deliveries:
            stream.end(Poison(f"it ended its worker {stream.strikes} times in a row", where=self.name))
            return
        if stream.strikes >= 2:
            stream.slots = self._stream_slots  # alone from now on: no innocent stream dies with it again
        stream.restart()
        self.redispatched += 1
        self._tell("redispatched", link, f"stream {stream.id}")
        self.waiting_streams.appendleft(stream)

    def _dispatch(self) -> None:
        """Give waiting work to workers with room, then wake who waits for room."""
        while self.waiting_batches and (link := self._least_loaded()):
            batch = self.waiting_batches.popleft()
            self.batches += 1
            self.payloads += len(batch.payloads)
            link.submit(batch)
        while self.waiting_streams and (link := self._with_slots(self.waiting_streams[0].slots)):
            link.open_stream(self.waiting_streams.popleft())
        self._wake_idle()

    def _wake_idle(self) -> None:
        """Wake one waiter; the next one a turn of the loop later, if the first left room."""
        while self._idle_waiters and (self._room() or self.refusal is not None):
            waiter = self._idle_waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                asyncio.get_running_loop().call_soon(self._wake_idle)
                return

    def _room(self) -> bool:
        return not self.waiting_batches and self._least_loaded() is not None

    def _least_loaded(self) -> WorkerLink | None:
        links = [
            link
            for link in self.links
            if link and link.state == "ready" and len(link.batches) < self._max_in_flight
        ]
        return min(links, key=lambda link: (len(link.batches), len(link.streams)), default=None)

    def _with_slots(self, slots: int) -> WorkerLink | None:
        free = self._stream_slots - slots
        links = [link for link in self.links if link and link.state == "ready" and link.slots <= free]
        return min(links, key=lambda link: link.slots, default=None)

    def _admit(self, waiting: deque[Any]) -> None:
        if self.refusal is not None:
            raise self.refusal
        if len(waiting) >= self._max_waiting:
            raise Overloaded(
                f"{len(waiting)} are waiting for a worker", where=self.name, remedy="try again later"
            )

    def _expire(self, batch: Batch) -> None:
        if not batch.future.done():
            batch.future.set_exception(DeadlineExceeded("the batch's deadline passed", where=self.name))
            self._withdraw(batch)

    def _withdraw(self, batch: Batch) -> None:
        if batch in self.waiting_batches:
            self.waiting_batches.remove(batch)
            self._dispatch()

    def _stream_ended(self, stream: PieceStream) -> None:
        if stream in self.waiting_streams:
            self.waiting_streams.remove(stream)
        for link in self.links:
            if link is not None:
                link.close_stream(stream)
        self.changed.set()

    def _tell(self, kind: str, link: WorkerLink, reason: str = "") -> None:
        tell(self._on_event, Event(kind, self.name, f"worker {link.slot}", link.pid, reason))


def outcome(probe: asyncio.Future[list[bytes | Failure]]) -> str:
    """What became of a worker's probe: `ok`, `failed`, `gone`, or `late` while it is not answered."""
    if not probe.done():
        return "late"
    if probe.cancelled():
        return "gone"
    if probe.exception() is not None or any(isinstance(answer, Failure) for answer in probe.result()):
        return "failed"
    return "ok"
