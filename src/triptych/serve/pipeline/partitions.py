"""Partitions: messages of one key go to one processor, in their order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable

from triptych.serve.pipeline.message import Message, rows_of
from triptych.serve.pipeline.producer import Producer

Partition = Callable[[Message], Hashable]


class Partitions:
    """Divides what a producer hands out among lanes, one for each processor.

    Nothing is taken from the producer while a lane is full: a slow key slows the others, and nothing is lost
    or reordered. Inside are at most `max_demand` rows per lane, and one chunk.

    Args:
        producer: where the messages come from.
        partition_by: the key of a message; equal keys share a lane. None is any lane: the emptiest.
        lanes: how many.
        max_demand: rows a lane is full at.
    """

    def __init__(self, producer: Producer, partition_by: Partition, lanes: int, max_demand: int) -> None:
        self._producer, self._partition_by, self._max_demand = producer, partition_by, max_demand
        self.lanes = [Lane(self) for _ in range(lanes)]
        self._is_pulling = self._is_drained = False

    def drain(self) -> None:
        """Accept nothing new; hand out what is there."""
        self._producer.drain()

    def refuse_all(self) -> list[Message]:
        """Hand back everything that still waits."""
        left = [message for lane in self.lanes for message in lane.empty()]
        return left + self._producer.refuse_all()

    async def fill(self, lane: Lane, demand: int) -> bool:
        """Wait until `lane` has messages; false once there are no more."""
        while not lane.waiting and not self._is_drained:
            if self._is_pulling or any(other.rows >= self._max_demand for other in self.lanes):
                await lane.wait()
            else:
                await self._pull(demand)
        return bool(lane.waiting)

    async def _pull(self, demand: int) -> None:
        """Take a chunk and divide it; whoever waits looks again afterwards, also if this is cancelled."""
        self._is_pulling = True
        try:
            messages = await self._producer.take(demand)
            self._is_drained = not messages
            for message in messages:
                self._lane_of(message).put(message)
        finally:
            self._is_pulling = False
            self.wake()

    def wake(self) -> None:
        """Have every lane that waits look again."""
        for lane in self.lanes:
            lane.look_again()

    def _lane_of(self, message: Message) -> Lane:
        try:
            key = self._partition_by(message)
        except Exception as error:
            message.failed(error)
            key = None
        if key is None:
            return min(self.lanes, key=lambda lane: lane.rows)
        return self.lanes[hash(key) % len(self.lanes)]


class Lane:
    """The producer that one processor takes from.

    Attributes:
        waiting: its messages, oldest first.
        rows: how many rows they have.
    """

    def __init__(self, partitions: Partitions) -> None:
        self.waiting: deque[Message] = deque()
        self.rows = 0
        self._partitions = partitions
        self._waiter: asyncio.Future[None] | None = None

    async def take(self, demand: int) -> list[Message]:
        """Messages of at most `demand` rows and at least one message; an empty list once drained."""
        if not await self._partitions.fill(self, demand):
            return []
        messages = [self.waiting.popleft()]
        while self.waiting and rows_of(messages) + self.waiting[0].rows <= demand:
            messages.append(self.waiting.popleft())
        self.rows -= rows_of(messages)
        self._partitions.wake()
        return messages

    def drain(self) -> None:
        """Accept nothing new."""
        self._partitions.drain()

    def refuse_all(self) -> list[Message]:
        """Hand back everything that waits in this lane."""
        return self.empty()

    def put(self, message: Message) -> None:
        """One more."""
        self.waiting.append(message)
        self.rows += message.rows

    def empty(self) -> list[Message]:
        """All of its messages, taken out."""
        messages = list(self.waiting)
        self.waiting.clear()
        self.rows = 0
        return messages

    async def wait(self) -> None:
        """Return when it is worth looking again."""
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def look_again(self) -> None:
        """Wake whoever waits."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
