"""The embedded broker of the direct lane: a caller asks and waits, all in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from triptych.errors import DeadlineExceeded
from triptych.serve.pipeline.acknowledger import FutureAcknowledger
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import ProducerOptions
from triptych.serve.pipeline.producer import QueueProducer


class MemoryBroker(QueueProducer):
    """A `QueueProducer` one can ask."""

    def __init__(self, options: ProducerOptions | None = None) -> None:
        super().__init__(options)
        self._acknowledger = FutureAcknowledger()

    async def ask(
        self,
        data: Any,
        *,
        rows: int = 1,
        batcher: str = "default",
        batch_key: Hashable = None,
        deadline_s: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Any:
        """Queue one message and return its result. Cancelling the call cancels the message.

        Args:
            deadline_s: latest moment for the answer, on the clock of `loop.time()`.

        Raises: Overloaded or Draining at once; DeadlineExceeded at the deadline; else what it failed with.
        """
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        facts = {} if metadata is None else metadata
        message = Message(
            data, self._acknowledger, answer, rows, deadline_s, facts, batcher=batcher, batch_key=batch_key
        )
        self.offer(message)
        timer = None if deadline_s is None else loop.call_at(deadline_s, _expire, message)
        try:
            return await answer
        except asyncio.CancelledError:
            message.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()


def _expire(message: Message) -> None:
    """The deadline passed, wherever the message is: answer its caller now."""
    late = DeadlineExceeded("the deadline passed", where="request")
    if not message.ack_ref.done():
        message.ack_ref.set_exception(late)
    message.cancel(late)
