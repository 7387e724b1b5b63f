"""Acknowledgements to RabbitMQ, many in one frame."""

from __future__ import annotations

import asyncio

from triptych.serve.brokers.amqp_errors import ERRORS
from triptych.serve.brokers.amqp_link import AmqpLink


class Acknowledging:
    """Tells the broker what is settled: all up to the oldest message still open in one frame, others singly.

    What is settled while the event loop is busy goes together. An acknowledgement that does not get through
    is no harm: the message comes again.
    """

    def __init__(self, link: AmqpLink, queue: str) -> None:
        self._link, self._queue = link, queue
        self._settled: dict[int, bool] = {}  # every delivery tag that is open, oldest first
        self._flush: asyncio.Task[None] | None = None

    def arrived(self, tag: int) -> None:
        """A message came."""
        self._settled[tag] = False

    def settle(self, tag: int) -> None:
        """It is dealt with."""
        if tag in self._settled:
            self._settled[tag] = True
            if self._flush is None:
                self._flush = asyncio.create_task(self.flush())

    async def give_back(self, tag: int, *, requeue: bool = True) -> None:
        """Hand a message back to the queue, or to the dead letters."""
        try:
            await self._link.give_back(self._queue, tag, requeue=requeue)
        except ERRORS:
            return
        self._settled.pop(tag, None)

    def forget(self) -> None:
        """The connection is gone, and its tags with it."""
        self._settled.clear()

    async def flush(self) -> None:
        """Say it now."""
        self._flush = None
        last = 0
        for tag, is_settled in self._settled.items():
            if not is_settled:
                break
            last = tag
        others = [tag for tag, is_settled in self._settled.items() if is_settled and tag > last]
        for tag in [tag for tag in self._settled if tag <= last] + others:
            del self._settled[tag]
        try:
            if last:
                await self._link.acknowledge(self._queue, last, multiple=True)
            for tag in others:
                await self._link.acknowledge(self._queue, tag)
        except ERRORS:
            return
