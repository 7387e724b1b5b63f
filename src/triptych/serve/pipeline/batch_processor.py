"""A batch processor: has one batch computed at a time, and finds out what to do when that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from triptych.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    Draining,
    Overloaded,
    Poison,
    SupervisorFailed,
    WorkerDied,
)
from triptych.serve.pipeline.batcher import Batcher
from triptych.serve.pipeline.handler import BatchInfo, EmitReason, Handler
from triptych.serve.pipeline.ledger import Ledger
from triptych.serve.pipeline.message import Message, rows_of
from triptych.serve.pipeline.processor import cancelled_from_outside

# trying again would not help
REFUSALS = (BrokerUnavailable, DeadlineExceeded, Draining, Overloaded, SupervisorFailed)


class BatchProcessor:
    """One batch processor. A batch under way when its task crashes is delivered again by the next task."""

    def __init__(self, handler: Handler, batcher: Batcher, ledger: Ledger, max_deliveries: int) -> None:
        self._handler, self._batcher, self._ledger = handler, batcher, ledger
        self._max_deliveries = max_deliveries
        self._held: dict[Message, None] = {}
        self._reason: EmitReason = "idle"

    async def run(self) -> None:
        """Take batches and have them computed, for ever."""
        while True:
            if self._held:
                await self._deliver(list(self._held))
            await self._batcher.has_batch()
            await self._handler.capacity(self._batcher.name)
            batch = self._batcher.take()
            if batch is not None:
                messages, info = batch
                self._held, self._reason = dict.fromkeys(messages), info.reason
                await self._deliver(messages)

    def abandon(self) -> list[Message]:
        """Give up what is held."""
        messages = list(self._held)
        self._held.clear()
        return messages

    async def _deliver(self, messages: list[Message]) -> None:
        """Hand `messages` to the handler, and end those that have their answer afterwards."""
        messages, dead = self._ledger.split(messages)
        self._finish(dead)
        if not messages:
            return
        for message in messages:
            message.deliveries += 1
            if message.deliveries > 1:
                self._ledger.redelivered(message)
        first = messages[0]
        info = BatchInfo(self._batcher.name, first.batch_key, rows_of(messages), len(messages), self._reason)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            await self._handler.handle_batch(self._batcher.name, messages, info)
        except WorkerDied as error:
            await self._after_death(self._unanswered(messages), error)
        except REFUSALS as error:
            self._fail(messages, error)
        except Exception as error:
            await self._after_exception(self._unanswered(messages), error)
        except asyncio.CancelledError as error:
            if cancelled_from_outside():
                raise
            self._fail(messages, error)
        else:
            if all(message.deliveries == 1 for message in messages):  # else it may have waited for a worker
                self._batcher.note(info.rows, loop.time() - began_s)
            self._finish(messages)

    async def _after_exception(self, messages: list[Message], error: Exception) -> None:
        """One message spoiled the batch: try them one by one."""
        if len(messages) == 1:
            self._fail(messages, error)
        else:
            for message in messages:
                await self._deliver([message])

    async def _after_death(self, messages: list[Message], error: WorkerDied) -> None:
        """One message may have killed the worker: try the halves; a lone one is tried again, or given up."""
        if len(messages) > 1:
            middle = len(messages) // 2
            await asyncio.gather(self._deliver(messages[:middle]), self._deliver(messages[middle:]))
        elif messages and messages[0].deliveries < self._max_deliveries:
            await self._deliver(messages)
        elif messages:
            poison = Poison(
                f"{messages[0].deliveries} workers died of it, the last one with nothing else to do"
            )
            poison.__cause__ = error
            self._fail(messages, poison)

    def _unanswered(self, messages: Sequence[Message]) -> list[Message]:
        """End the messages that were answered before the batch broke; return the others."""
        self._finish([message for message in messages if message.status != "pending"])
        return [message for message in messages if message.status == "pending"]

    def _fail(self, messages: Sequence[Message], error: BaseException) -> None:
        for message in messages:
            if message.status == "pending":
                message.failed(error)
        self._finish(messages)

    def _finish(self, messages: Sequence[Message]) -> None:
        for message in messages:
            del self._held[message]
        self._ledger.finish(messages)
