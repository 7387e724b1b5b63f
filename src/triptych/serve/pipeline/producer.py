"""The producer: where messages come from, only as fast as the pipeline asks for them."""

from __future__ import annotations

from typing import Protocol

from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import ProducerOptions


class Producer(Protocol):
    """A source of messages. Only `take` hands any out: nothing is pushed into the pipeline."""

    async def take(self, demand: int) -> list[Message]:
        """At least one and at most `demand` messages; an empty list means that it is drained and there will be none."""

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

    def __len__(self) -> int:
        raise NotImplementedError

    def offer(self, message: Message) -> None:
        """Queue `message`.

        Raises: Overloaded at once if the queue is full, Draining after `drain()`, DeadlineExceeded if it is too late.
        """

    def discard(self, message: Message) -> None:
        """Take a cancelled message out; its place is free at once."""

    async def take(self, demand: int) -> list[Message]:
        """At least one and at most `demand` messages, oldest first; an empty list once drained."""
        raise NotImplementedError

    def drain(self) -> None:
        """Accept nothing new."""

    def refuse_all(self) -> list[Message]:
        """Everything that still waits."""
        raise NotImplementedError
