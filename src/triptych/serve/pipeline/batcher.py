"""A batcher: gathers messages that may share a batch, counts their rows, and knows which batch goes next."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable

from triptych.errors import DeadlineExceeded
from triptych.serve.pipeline.batch_times import BatchTimes
from triptych.serve.pipeline.handler import BatchInfo, EmitReason
from triptych.serve.pipeline.ledger import Ledger
from triptych.serve.pipeline.message import Message, rows_of
from triptych.serve.pipeline.options import BatcherOptions


class Group:
    """A batch that is being gathered: messages of one key."""

    def __init__(self, batcher: Batcher, key: Hashable) -> None:
        self.key = key
        self.messages: list[Message] = []
        self.rows = 0
        self.full = False
        self.due = False
        self.timer: asyncio.TimerHandle | None = None
        self._batcher = batcher

    def discard(self, message: Message) -> None:
        """Take a cancelled message out."""
        self.messages.remove(message)
        self.rows -= message.rows
        message.place = None
        self._batcher.discarded(self, message)


class Batcher:
    """Gathers by batch key; its batch processors come and `take`.

    A batch is as large as the work that waited when it was taken: an idle batch processor takes what there
    is, a busy one lets it grow to `batch_size` rows. Its state outlives a crash of its task.

    Attributes:
        draining: whether unfilled batches are handed out because nothing more will come.
    """

    def __init__(self, name: str, options: BatcherOptions, ledger: Ledger) -> None:
        self.name, self.options = name, options
        self.draining = False
        self._ledger = ledger
        self._inbox: deque[Message] = deque()
        self._times = BatchTimes()
        self._rows = 0  # in the inbox and in groups
        self._open: dict[Hashable, Group] = {}  # in the order of their first message
        self._ready: deque[Group] = deque()  # full or due, in the order they became so
        self._arrived: asyncio.Future[None] | None = None
        self._room_waiters: deque[asyncio.Future[None]] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()

    @property
    def room(self) -> int:
        """Rows that may still come in."""
        return self.options.max_demand - self._rows

    async def has_room(self) -> None:
        """Return once there is room for a row."""
        while self.room <= 0:
            await _wait_in(self._room_waiters)

    def put(self, message: Message) -> None:
        """Take a message in; the processors ask `has_room` first."""
        self._rows += message.rows
        self._inbox.append(message)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def run(self) -> None:
        """Sort what comes in into groups."""
        while True:
            while self._inbox:
                self._gather(self._inbox[0])
                self._inbox.popleft()
            self._wake_taker()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    async def has_batch(self) -> None:
        """Return once `take` would give a batch."""
        while not self._takeable():
            await _wait_in(self._takers)

    def take(self) -> tuple[list[Message], BatchInfo] | None:
        """The batch that goes next: full and due ones in order, then the oldest unfilled one, if allowed."""
        while self._takeable():
            group = self._ready.popleft() if self._ready else next(iter(self._open.values()))
            reason = self._reason(group)
            self._close(group)
            self._release(group.rows)
            for message in group.messages:
                message.place = None
            alive, dead = self._ledger.split(group.messages)
            self._ledger.finish(dead)
            alive = self._leave_out_doomed(alive)
            if alive:
                self._wake_taker()
                info = BatchInfo(self.name, group.key, rows_of(alive), len(alive), reason)
                self._ledger.emitted(info)
                return alive, info
        return None

    def note(self, rows: int, elapsed_s: float) -> None:
        """A batch of so many rows took so long."""
        self._times.note(rows, elapsed_s)

    def _leave_out_doomed(self, messages: list[Message]) -> list[Message]:
        """Fail those that would expire while the batch is computed, the first to expire first, until all that
        are left have the time it takes. The last one is computed in any case: it shows how long that takes.
        """
        now_s, rows = asyncio.get_running_loop().time(), rows_of(messages)
        doomed: list[Message] = []
        for message in sorted(messages, key=lambda m: math.inf if m.deadline_s is None else m.deadline_s):
            enough = message.deadline_s is None or message.deadline_s > now_s + self._times.of(rows)
            if enough or len(doomed) == len(messages) - 1:
                break
            rows -= message.rows
            doomed.append(message)
            message.failed(DeadlineExceeded("too little time was left to compute it", where="pipeline"))
        self._ledger.finish(doomed)
        return [message for message in messages if message.status == "pending"] if doomed else messages

    def drain(self) -> None:
        """Hand out unfilled batches: nothing more will come."""
        self.draining = True
        self._wake_taker()

    def discarded(self, group: Group, message: Message) -> None:
        """A cancelled message has left `group`."""
        self._release(message.rows)
        if not group.messages:
            self._close(group)
            if group.due or group.full:
                self._ready.remove(group)
        self._ledger.finish((message,))

    def abandon(self) -> list[Message]:
        """Give up everything held."""
        groups = {id(group): group for group in (*self._ready, *self._open.values())}.values()
        messages = [*self._inbox, *(message for group in groups for message in group.messages)]
        for group in groups:
            self._close(group)
        self._inbox.clear()
        self._ready.clear()
        for message in messages:
            message.place = None
        self._release(self._rows)
        return messages

    def _gather(self, message: Message) -> None:
        if message.status != "pending":  # cancelled on its way here
            self._release(message.rows)
            self._ledger.finish((message,))
            return
        group = self._open.get(message.batch_key)
        if group is not None and group.rows + message.rows > self.options.batch_size:
            self._fill(group)
            group = None
        if group is None:
            group = self._open[message.batch_key] = Group(self, message.batch_key)
            loop = asyncio.get_running_loop()
            group.timer = loop.call_later(self.options.batch_timeout_s, self._make_due, group)
        message.place = group
        group.messages.append(message)
        group.rows += message.rows
        if group.rows >= self.options.batch_size:
            self._fill(group)

    def _fill(self, group: Group) -> None:
        group.full = True
        self._close(group)
        if not group.due:
            self._ready.append(group)

    def _make_due(self, group: Group) -> None:
        """It waited long enough: it goes next, and still grows until it is taken."""
        group.due = True
        self._ready.append(group)
        self._wake_taker()

    def _close(self, group: Group) -> None:
        """Nothing more joins this group."""
        if self._open.get(group.key) is group:
            del self._open[group.key]
        if group.timer is not None:
            group.timer.cancel()

    def _reason(self, group: Group) -> EmitReason:
        if group.full:
            return "size"
        if group.due:
            return "timeout"
        return "drain" if self.draining else "idle"

    def _takeable(self) -> bool:
        return bool(self._ready or (self._open and (self.options.when_idle or self.draining)))

    def _release(self, rows: int) -> None:
        self._rows -= rows
        if self.room > 0:
            _wake_all(self._room_waiters)

    def _wake_taker(self) -> None:
        while self._takers and self._takeable():
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return


async def _wait_in(waiters: deque[asyncio.Future[None]]) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    await waiter


def _wake_all(waiters: deque[asyncio.Future[None]]) -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
