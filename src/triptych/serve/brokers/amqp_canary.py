"""The canary: a message to oneself, which proves that messages go and come."""

from __future__ import annotations

import asyncio
import os
import random

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel


class Canary:
    """Goes through the broker over `channel`, by a private queue whose name begins with `prefix`."""

    def __init__(self, channel: Channel, prefix: str) -> None:
        self._channel = channel
        self._queue = f"{prefix}.canary.{os.getpid()}.{random.getrandbits(64):x}"
        self._back: asyncio.Future[None] | None = None

    async def begin(self) -> None:
        """Make its queue, and take from it."""
        await self._channel.queue_declare(self._queue, exclusive=True, auto_delete=True)
        await self._channel.basic_consume(self._queue, self._on_message, no_ack=True)

    async def fly(self) -> None:
        """Return once it has come back; it may never."""
        self._back = asyncio.get_running_loop().create_future()
        await self._channel.basic_publish(b"", routing_key=self._queue, wait=False)
        await self._back

    async def _on_message(self, message: DeliveredMessage) -> None:
        if self._back is not None and not self._back.done():
            self._back.set_result(None)
