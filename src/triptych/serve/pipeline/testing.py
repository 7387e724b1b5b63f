"""Testing a pipeline: a producer without bounds that writes down demand, and messages one can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import ProducerOptions
from triptych.serve.pipeline.producer import QueueProducer


class DummyProducer(QueueProducer):
    """Holds whatever a test gives it.

    Attributes:
        demands: what the pipeline asked for, call by call.
        asked: set once it has asked.
    """

    def __init__(self) -> None:
        super().__init__(ProducerOptions(capacity=2**31))
        self.demands: list[int] = []
        self.asked = asyncio.Event()

    async def take(self, demand: int) -> list[Message]:
        """As `QueueProducer.take`, written down."""
        self.demands.append(demand)
        self.asked.set()
        return await super().take(demand)


class WaitingAcknowledger:
    """Sets `message.ack_ref`, a future, to the message itself, and counts."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def ack(self, successful: Sequence[Message], failed: Sequence[Message]) -> None:
        """Hand every message to whoever waits for it."""
        for message in (*successful, *failed):
            self.acknowledged += 1
            message.ack_ref.set_result(message)


async def test_message(producer: QueueProducer, data: Any, **fields: Any) -> Message:
    """Send one message through the pipeline that takes from `producer`; return it once it is acknowledged."""
    return (await test_batch(producer, [data], **fields))[0]


async def test_batch(producer: QueueProducer, data: Sequence[Any], **fields: Any) -> list[Message]:
    """Send messages with the same `fields` at once; return them, in order, once all are acknowledged."""
    futures = [asyncio.get_running_loop().create_future() for _ in data]
    acknowledger = WaitingAcknowledger()
    for item, future in zip(data, futures, strict=True):
        producer.offer(Message(item, acknowledger, future, **fields))
    return list(await asyncio.gather(*futures))


test_message.__test__ = test_batch.__test__ = False  # type: ignore[attr-defined]  # not tests, whatever pytest thinks
