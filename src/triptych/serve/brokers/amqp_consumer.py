"""A consumer of one queue: what has come, what is still open, and whether something should have come."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from triptych.serve.brokers.amqp_errors import ERRORS, closing_is_an_error


class Consumption(msgspec.Struct, frozen=True):
    """A queue to take messages from.

    Args:
        queue: its name.
        on_message: called with every message; must not wait.
        prefetch: messages unacknowledged at a time; 0 is no bound, for messages that need no acknowledgement.
        no_ack: what is delivered counts as acknowledged.
    """

    queue: str
    on_message: Callable[[DeliveredMessage], None]
    prefetch: int = 0
    no_ack: bool = False


class Consumer:
    """Takes the messages of one queue over a channel of its own.

    Attributes:
        tag: what the broker calls it; empty until it has begun and after it has stopped.
        is_over: its connection is let go: what comes all the same would be taken for the next one's.
    """

    def __init__(self, consumption: Consumption, channel: Channel) -> None:
        self.consumption, self.channel, self.tag = consumption, channel, ""
        self.is_over = False
        self._open: dict[int, None] = {}  # the tags of messages not acknowledged, oldest first
        self._has_come = self._was_passed_over = False

    async def begin(self) -> None:
        """Begin to take messages; the broker may not answer."""
        await self.channel.basic_qos(prefetch_count=self.consumption.prefetch)
        started = await self.channel.basic_consume(
            self.consumption.queue, self._on_message, no_ack=self.consumption.no_ack
        )
        self.tag = str(started.consumer_tag)

    async def stop(self) -> None:
        """Take no more messages; those that are here can still be acknowledged."""
        tag, self.tag = self.tag, ""
        if tag:
            with suppress(*ERRORS), closing_is_an_error():
                await self.channel.basic_cancel(tag)

    async def acknowledge(self, tag: int, *, multiple: bool) -> None:
        """Tell the broker that a message (and, with `multiple`, all before it) is dealt with."""
        settled = [each for each in self._open if each <= tag] if multiple else [tag]
        for each in settled:
            self._open.pop(each, None)
        await self.channel.basic_ack(tag, multiple=multiple, wait=False)

    async def give_back(self, tag: int, *, requeue: bool) -> None:
        """Hand a message back, or, without `requeue`, to the dead letters."""
        self._open.pop(tag, None)
        await self.channel.basic_nack(tag, requeue=requeue, wait=False)

    async def check(self, control: Channel) -> None:
        """Ask, over another channel, whether the broker still knows it, unless it has stopped.

        Raises: an AMQPError (its queue is gone, has no consumer, or keeps what waits in it).
        """
        if self.tag:
            queue = self.consumption.queue
            found = await control.queue_declare(queue, passive=True)
            if not found.consumer_count:
                raise AMQPError(f"`{queue}` has no consumer")
            if self._is_forgotten(found.message_count or 0):
                raise AMQPError(f"nothing comes from `{queue}`, though messages wait in it")

    def _is_forgotten(self, waiting: int) -> bool:
        """Whether messages were `waiting` in the queue at this look and at the last, none has come between
        them, and there was room for one.

        A queue that was deleted and at once made anew may have inherited such a consumer: see `GONE_S`.
        """
        has_room = self.consumption.no_ack or len(self._open) < self.consumption.prefetch
        was_passed_over, self._was_passed_over = (
            self._was_passed_over,
            waiting > 0 and has_room and not self._has_come,
        )
        self._has_come = False
        return was_passed_over and self._was_passed_over

    async def _on_message(self, message: DeliveredMessage) -> None:
        if self.is_over:
            return
        self._has_come = True
        if not self.consumption.no_ack and message.delivery_tag is not None:
            self._open[message.delivery_tag] = None
        self.consumption.on_message(message)
