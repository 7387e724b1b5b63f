"""The embedded broker of the direct lane: a caller asks and waits, all in memory."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from triptych.serve.pipeline.producer import QueueProducer


class MemoryBroker(QueueProducer):
    """A `QueueProducer` one can ask."""

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

        Raises: Overloaded or Draining at once; DeadlineExceeded at the deadline; else what the message failed with.
        """
        raise NotImplementedError
