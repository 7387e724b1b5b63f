"""A processor: takes messages as there is room for them, prepares them, passes them on to their batchers."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Mapping

from triptych.errors import ConfigError, nearest
from triptych.serve.pipeline.batcher import Batcher
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.ledger import Ledger
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import ProcessorsOptions
from triptych.serve.pipeline.producer import Producer


class Processor:
    """One processor. What it has taken and not passed on stays with it when its task crashes.

    Attributes:
        ended: whether the producer is drained and everything was passed on.
    """

    def __init__(
        self,
        handler: Handler,
        producer: Producer,
        batchers: Mapping[str, Batcher],
        ledger: Ledger,
        options: ProcessorsOptions,
    ) -> None:
        self.ended = False
        self._handler, self._producer, self._batchers = handler, producer, batchers
        self._ledger, self._options = ledger, options
        self._held: deque[Message] = deque()

    async def run(self) -> None:
        """Take and pass on until the producer is drained."""
        await self._pass_on()
        while messages := await self._producer.take(await self._demand()):
            self._ledger.accept(messages)
            self._held.extend(messages)
            self._prepare(messages)
            await self._pass_on()
        self.ended = True
        self._ledger.changed.set()

    def abandon(self) -> list[Message]:
        """Give up what is held."""
        messages = list(self._held)
        self._held.clear()
        return messages

    async def _demand(self) -> int:
        """Rows to ask for: as many as every batcher has room for."""
        demand = self._options.max_demand
        for batcher in self._batchers.values():
            await batcher.has_room()
        return max(1, min([demand, *(batcher.room for batcher in self._batchers.values())]))

    def _prepare(self, messages: list[Message]) -> None:
        try:
            self._handler.prepare_messages(messages)
        except Exception as error:
            for message in messages:
                message.failed(error)

    async def _pass_on(self) -> None:
        while self._held:
            message = self._held[0]
            if message.status == "pending":
                await self._handle(message)
            self._held.popleft()
            if message.status == "pending":
                self._batchers[message.batcher].put(message)
            else:
                self._ledger.finish((message,))

    async def _handle(self, message: Message) -> None:
        try:
            outcome = self._handler.handle_message(message)
            if outcome is not None and inspect.isawaitable(outcome):
                await outcome
            if message.batcher not in self._batchers and self._batchers:
                raise ConfigError(
                    f"no batcher {message.batcher!r}",
                    where="handle_message",
                    valid=", ".join(self._batchers),
                    remedy=nearest(message.batcher, self._batchers),
                )
        except Exception as error:
            message.failed(error)
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            message.failed(error)
        if not self._batchers and message.status == "pending":
            message.put_result(message.result)


def cancelled_from_outside() -> bool:
    """Whether the running task was asked to end, rather than a callback awaited something cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
