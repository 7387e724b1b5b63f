"""The producer: where messages come from, only as fast as the pipeline asks for them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from typing import Protocol

from triptych.errors import DeadlineExceeded, Draining, Overloaded
from triptych.serve.pipeline.acknowledger import acknowledge
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import ProducerOptions


class Producer(Protocol):
    """A source of messages. Only `take` hands any out: nothing is pushed into the pipeline."""

    async def take(self, demand: int) -> list[Message]:
        """Messages of at most `demand` rows, and at least one message; an empty list once drained.

        What it hands out must not be lost when the call is cancelled.
        """

    def drain(self) -> None:
        """Accept nothing new; hand out what is there."""

    def refuse_all(self) -> list[Message]:
        """Hand back everything that still waits, to be failed: the pipeline has ended."""


class QueueProducer:
    """A bounded queue in memory, first in first out.

    Attributes:
        options: its capacity and rate limit.
    """

    def __init__(self, options: ProducerOptions | None = None) -> None:
        self.options = options or ProducerOptions()
        self._waiting: OrderedDict[Message, None] = OrderedDict()
        self._takers: deque[asyncio.Future[None]] = deque()
        self._draining = False
        self._taking = 0  # calls of `take` under way
        self._window_ends_s = 0.0
        self._allowed = 0  # messages that may still leave in this window

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_backed_up(self) -> bool:
        """Whether messages wait that nobody asks for: the pipeline is full."""
        return bool(self._waiting) and not self._taking

    @property
    def is_full(self) -> bool:
        """Whether `offer` would refuse for want of room."""
        return len(self._waiting) >= self.options.capacity

    def offer(self, message: Message) -> None:
        """Queue `message`.

        Raises: Overloaded if the queue is full, Draining after `drain()`, DeadlineExceeded if too late.
        """
        if self._draining:
            raise Draining("no new work is accepted", where="queue")
        if self.is_full:
            raise Overloaded(
                f"{len(self._waiting)} messages are waiting",
                where="queue",
                remedy=f"try again in {self.options.retry_after_s:g} s",
            )
        if message.deadline_s is not None and message.deadline_s <= time.monotonic():
            raise DeadlineExceeded("the deadline had passed on arrival", where="queue")
        message.place = self
        self._waiting[message] = None
        self._wake()

    def discard(self, message: Message) -> None:
        """Take a cancelled message out and acknowledge it; its place is free at once."""
        del self._waiting[message]
        message.place = None
        acknowledge((message,))

    async def take(self, demand: int) -> list[Message]:
        """Messages of at most `demand` rows and at least one message, oldest first; nothing once drained."""
        self._taking += 1
        try:
            while True:
                while not self._waiting:
                    if self._draining:
                        return []
                    await self._offered()
                delay_s = self._limit_delay_s()
                if delay_s <= 0:
                    return self._pop(demand)
                await asyncio.sleep(delay_s)
        finally:
            self._taking -= 1

    def drain(self) -> None:
        """Accept nothing new."""
        self._draining = True
        for taker in self._takers:
            if not taker.done():
                taker.set_result(None)
        self._takers.clear()

    def refuse_all(self) -> list[Message]:
        """Everything that still waits."""
        self.drain()
        messages = list(self._waiting)
        self._waiting.clear()
        for message in messages:
            message.place = None
        return messages

    def _pop(self, demand: int) -> list[Message]:
        messages: list[Message] = []
        limited = self.options.rate_limiting is not None
        while self._waiting and not (limited and self._allowed == 0):
            message, _ = self._waiting.popitem(last=False)
            if messages and message.rows > demand:
                self._waiting[message] = None
                self._waiting.move_to_end(message, last=False)
                break
            message.place = None
            messages.append(message)
            demand -= message.rows
            self._allowed -= limited
            if demand <= 0:
                break
        if self._waiting:
            self._wake()
        return messages

    def _limit_delay_s(self) -> float:
        """Seconds until one more message may leave; opens a new window when the last one is over."""
        limit = self.options.rate_limiting
        if limit is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        if now >= self._window_ends_s:
            self._window_ends_s, self._allowed = now + limit.interval_s, limit.allowed_messages
        return 0.0 if self._allowed else self._window_ends_s - now

    async def _offered(self) -> None:
        taker = asyncio.get_running_loop().create_future()
        self._takers.append(taker)
        try:
            await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled():
                self._wake()  # it was this taker's turn: pass it on
            raise

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
