"""Messages on their way into a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiormq.abc import DeliveredMessage

from triptych.serve.brokers.amqp_errors import ERRORS
from triptych.serve.brokers.amqp_link import AmqpLink

RETRY_S = 1.0

log = logging.getLogger(__name__)


class Intaking:
    """Takes messages in, many at a time, and acknowledges them together once they are written down."""

    def __init__(self, note: Callable[[DeliveredMessage], Awaitable[None]]) -> None:
        self._note = note
        self._arrived: list[DeliveredMessage] = []
        self._changed = asyncio.Event()

    def arrived(self, message: DeliveredMessage) -> None:
        """A message came."""
        self._arrived.append(message)
        self._changed.set()

    def forget(self) -> None:
        """The connection is gone: they come again."""
        self._arrived.clear()

    async def run(self, link: AmqpLink, queue: str) -> None:
        """Take in what comes, for ever; while it cannot be written down, RabbitMQ keeps it."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while messages := self._arrived[:]:
                outcomes = await asyncio.gather(*map(self._note, messages), return_exceptions=True)
                errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
                if errors:
                    log.error("results cannot be written down, trying again: %s", errors[0])
                    await asyncio.sleep(RETRY_S)
                    continue
                if self._arrived[: len(messages)] != messages:
                    break  # the connection was lost meanwhile
                del self._arrived[: len(messages)]
                with suppress(*ERRORS):
                    await link.acknowledge(queue, messages[-1].delivery_tag or 0, multiple=True)
