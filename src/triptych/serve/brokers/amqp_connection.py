"""One connection to RabbitMQ: what is declared and consumed over it, and the canary that proves it."""

from __future__ import annotations

import asyncio
import math
import os
import random
from collections.abc import Callable
from contextlib import suppress

import msgspec
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.connection import Connection
from aiormq.exceptions import (
    AMQPError,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    DeliveryError,
)
from pamqp.commands import Basic
from pamqp.common import FieldTable

from triptych.serve.brokers.options import RabbitOptions
from triptych.serve.brokers.young_queues import YoungQueues

ERRORS = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, asyncio.InvalidStateError)
CLOSE_S = RENEW_S = 1.0
NO_LEADER = (
    "`{0}` is there, but does not answer who wants to consume from it: it has no leader. Either too few nodes"
    " of the cluster are up, or RabbitMQ was killed right after the queue was made; if so, `rabbitmqctl"
    " delete_queue {0}`: it is made anew, and accepted jobs are sent again"
)

Properties = Basic.Properties


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


class AmqpConnection:
    """A connection that is open, with a channel to publish on, one for control, and one for each consumer.

    Whatever does not work raises one of `ERRORS`.

    Args:
        created: queues found missing, and declared, are added to it.
        young: of the link that this connection is for.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        options: RabbitOptions,
        created: set[str],
        young: YoungQueues,
    ) -> None:
        self.options, self.created, self._young = options, created, young
        self._connection = connection
        self._publisher: Channel
        self._control: Channel
        self._channels: dict[str, Channel] = {}
        self._consumers: dict[str, str] = {}  # the tag of each queue's consumer
        self._renewed_at_s = -math.inf
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._canary: asyncio.Future[None] | None = None
        self._canary_queue = f"{options.prefix}.canary.{os.getpid()}.{random.getrandbits(64):x}"

    async def open(self) -> None:
        """Open the channels; everything else comes after."""
        self._control = await self._open_channel()
        await self._open_publisher()

    async def declare_queue(self, name: str, arguments: FieldTable | None = None) -> None:
        """Make the durable queue `name` unless it is there; `created` tells which had to be made.

        A quorum queue made in the last second before RabbitMQ is killed may never have a leader again: it is
        there, but takes and gives nothing. One that this link made and did not see last is tried, and made
        anew if it is so. No accepted job is lost with it: the gateways send theirs again.
        """
        channel = await self._open_channel()
        if name in self._young.leaderless:
            await channel.queue_delete(name)
            self._young.leaderless.discard(name)
        elif self._young.take(name) and not await self._answers(name):
            self._young.leaderless.add(name)  # seen to on the next connection: this one will not live
            raise AMQPError(f"`{name}`, made right before RabbitMQ was lost, has no leader: it is made anew")
        try:
            await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            self.created.add(name)
            channel = await self._open_channel()
            await channel.queue_declare(name, durable=True, arguments=arguments or {})
            self._young.made(name)
        await channel.close()

    async def declare_private_queue(self, name: str) -> None:
        """Make a queue that nobody shares, gone with this connection."""
        await self._control.queue_declare(name, exclusive=True, auto_delete=True)

    async def declare_exchange(self, name: str, kind: str) -> None:
        """Make the durable exchange `name` unless it is there."""
        await self._control.exchange_declare(name, exchange_type=kind, durable=True)

    async def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Have `exchange` copy its messages of `routing_key` into `queue`."""
        await self._control.queue_bind(queue, exchange, routing_key)

    async def tell(self, exchange: str, properties: Properties) -> None:
        """Send an empty message, while the connection is not proven yet."""
        await self._control.basic_publish(b"", exchange=exchange, properties=properties, wait=False)

    async def publish(
        self, body: bytes, properties: Properties, *, routing_key: str, exchange: str, confirm: bool
    ) -> None:
        """Send a message, once the broker does not block publishers; `confirm` waits until it has it safe."""
        await self._transport().ready()
        publisher = self._publisher
        try:
            await publisher.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=confirm,
                wait=False,
            )
        except DeliveryError:
            await self._renew(publisher)
            raise

    async def is_blocked(self) -> bool:
        """Whether the broker has said `connection.blocked`, and not taken it back."""
        try:
            async with asyncio.timeout(0.01):
                await self._transport().ready()
        except TimeoutError:
            return True
        except ERRORS:  # it is closed
            return False
        return False

    async def consume(self, consumption: Consumption) -> None:
        """Begin to take messages."""

        async def on_message(message: DeliveredMessage) -> None:
            consumption.on_message(message)

        channel = self._channels[consumption.queue] = await self._open_channel()
        await channel.basic_qos(prefetch_count=consumption.prefetch)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self.give_up(
                f"the broker cancelled the consumer of `{consumption.queue}` (basic.cancel)"
            )
        )
        try:
            async with asyncio.timeout(self.options.check_s):
                started = await channel.basic_consume(
                    consumption.queue, on_message, no_ack=consumption.no_ack
                )
        except TimeoutError as error:
            raise AMQPError(NO_LEADER.format(consumption.queue)) from error
        self._consumers[consumption.queue] = str(started.consumer_tag)

    async def stop_consuming(self) -> None:
        """Take no more messages; those that are here can still be acknowledged."""
        consumers, self._consumers = self._consumers, {}
        for queue, tag in consumers.items():
            with suppress(*ERRORS):
                await self._channels[queue].basic_cancel(tag)

    async def acknowledge(self, queue: str, tag: int, *, multiple: bool) -> None:
        """Tell the broker that a message (and, with `multiple`, all before it) is dealt with."""
        await self._consuming(queue).basic_ack(tag, multiple=multiple, wait=False)

    async def give_back(self, queue: str, tag: int, *, requeue: bool) -> None:
        """Hand a message back, or, without `requeue`, to the dead letters."""
        await self._consuming(queue).basic_nack(tag, requeue=requeue, wait=False)

    async def prove(self) -> None:
        """Set up the canary, and have it come back a first time."""
        await self._control.queue_declare(self._canary_queue, exclusive=True, auto_delete=True)
        await self._control.basic_consume(self._canary_queue, self._on_canary, no_ack=True)
        await self._check()

    async def watch(self) -> str:
        """Return why the connection is no good any more."""
        channels = [self._control, *self._channels.values()]
        ends: list[asyncio.Future[object]] = [channel.closing for channel in channels]
        ends.append(self._transport().closing)
        try:
            while True:
                waiting: list[asyncio.Future[object]] = [self._broken, *ends]  # type: ignore[list-item]
                done, _ = await asyncio.wait(
                    waiting, timeout=self.options.check_s, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return why(next(iter(done)))
                if not await self.is_blocked():  # a blocked publisher's canary cannot come
                    await self._check()
        except ERRORS as error:
            return str(error) or f"no message came through within {self.options.check_s:g} s"
        finally:
            for end in ends:
                end.cancel()

    def give_up(self, reason: str) -> None:
        """It is no good any more: `watch` returns the reason."""
        if not self._broken.done():
            self._broken.set_result(reason)

    async def close(self) -> None:
        """Let go of it; a broker that does not answer is not waited for."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except (*ERRORS, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise

    async def _answers(self, name: str) -> bool:
        """Whether a queue gives a message, or says that it has none; a message goes back."""
        channel = await self._open_channel()
        try:
            async with asyncio.timeout(self.options.check_s):
                await channel.basic_get(name)
        except TimeoutError:
            return False
        await channel.close()
        return True

    async def _open_publisher(self) -> None:
        channel = self._publisher = await self._open_channel()
        channel.closing.add_done_callback(
            lambda end: self.give_up(why(end)) if channel is self._publisher else None
        )

    async def _renew(self, refusing: Channel) -> None:
        """Publish on another channel from now on, at most once in `RENEW_S`.

        The queue may be full. But if it had no leader when the first message for it came on a channel,
        RabbitMQ 3.10 refuses every message on that channel, for as long as it is open.
        """
        now_s = asyncio.get_running_loop().time()
        if refusing is self._publisher and now_s >= self._renewed_at_s + RENEW_S:
            self._renewed_at_s = now_s
            await self._open_publisher()
            await refusing.close()

    async def _open_channel(self) -> Channel:
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        return underlay

    def _consuming(self, queue: str) -> Channel:
        if queue not in self._channels:
            raise ChannelInvalidStateError(f"`{queue}` is not consumed yet")
        return self._channels[queue]

    def _transport(self) -> Connection:
        if self._connection.transport is None:
            raise ChannelInvalidStateError("the connection is closed")
        transport = self._connection.transport.connection
        assert isinstance(transport, Connection)
        return transport

    async def _check(self) -> None:
        """Look: each queue has a consumer, and a message comes back.

        Raises: an AMQPError (a queue is gone), TimeoutError.
        """
        async with asyncio.timeout(self.options.check_s):
            for queue in list(self._consumers):
                found = await self._control.queue_declare(queue, passive=True)
                if not found.consumer_count:
                    raise AMQPError(f"`{queue}` has no consumer")
            self._canary = asyncio.get_running_loop().create_future()
            await self._control.basic_publish(b"", routing_key=self._canary_queue, wait=False)
            await self._canary
        self._young.are_well()

    async def _on_canary(self, message: DeliveredMessage) -> None:
        if self._canary is not None and not self._canary.done():
            self._canary.set_result(None)


def why(end: asyncio.Future[object]) -> str:
    """What ended it."""
    if end.cancelled():
        return "closed"
    error = end.exception()
    return str(end.result()) if error is None else f"{type(error).__name__}: {error}"
