"""One connection to RabbitMQ: what is declared and consumed over it, and the canary that proves it."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from aio_pika.abc import AbstractConnection
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

from triptych.serve.brokers.amqp_canary import Canary
from triptych.serve.brokers.amqp_consumer import Consumer, Consumption
from triptych.serve.brokers.amqp_errors import ERRORS, Blocked, closing_is_an_error, was_asked_to_stop, why
from triptych.serve.brokers.known_queues import KnownQueues
from triptych.serve.brokers.options import RabbitOptions

CLOSE_S = RENEW_S = 1.0
TOLD_S = 2.0  # by then it has been confirmed, if it ever is
GONE_S = 0.5  # see `AmqpConnection.declare_queue`
NO_LEADER = (
    "`{0}` is there, but does not answer who wants to consume from it: it has no leader. Either too few nodes"
    " of the cluster are up, or RabbitMQ was killed right after the queue was made; if so, `rabbitmqctl"
    " delete_queue {0}`: it is made anew, and accepted jobs are sent again"
)

Properties = Basic.Properties


class AmqpConnection:
    """A connection that is open, with a channel to publish on, one for control, and one for each consumer.

    Whatever does not work raises one of `ERRORS`.

    Args:
        created: queues found missing, and declared, are added to it.
        known: by the link that this connection is for.

    Attributes:
        publisher: the channel to publish on.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        options: RabbitOptions,
        created: set[str],
        known: KnownQueues,
    ) -> None:
        self.options, self.created, self._known = options, created, known
        self._connection = connection
        self.publisher: Channel
        self._control: Channel
        self._canary: Canary
        self._consumers: dict[str, Consumer] = {}  # by queue
        self._stopping: list[asyncio.Task[None]] = []
        self._is_doubted, self._renewed_at_s = False, -math.inf
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Open the channels; everything else comes after."""
        self._control = await self._open_channel()
        self._canary = Canary(self._control, self.options.prefix)
        await self._open_publisher()

    async def declare_queue(self, name: str, arguments: FieldTable | None = None) -> None:
        """Make the durable queue `name` unless it is there; `created` tells which had to be made.

        A quorum queue made in the last second before RabbitMQ is killed may never have a leader again: it is
        there, but takes and gives nothing. One that this link made and did not see last is tried, and made
        anew if it is so. No accepted job is lost with it: the gateways send theirs again.

        A queue that somebody has deleted is made anew after `GONE_S`. RabbitMQ 3.10 looks every 30 ms whether
        a queue that ended under a consumer is back, and if so consumes from it again, for a channel that
        counts on from the one before: it takes the new messages for old ones and drops them. A consumer whose
        queue is seen to be gone is cancelled instead.
        """
        channel = await self._open_channel()
        if name in self._known.leaderless:
            await channel.queue_delete(name)
            self._known.leaderless.discard(name)
        elif self._known.was_young(name) and not await self._answers(name):
            self._known.leaderless.add(name)  # seen to on the next connection: this one will not live
            raise AMQPError(f"`{name}`, made right before RabbitMQ was lost, has no leader: it is made anew")
        try:
            await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            if name in self._known.met and name not in self.created:
                await asyncio.sleep(GONE_S)
            self.created.add(name)
            channel = await self._open_channel()
            await channel.queue_declare(name, durable=True, arguments=arguments or {})
            self._known.made(name)
        self._known.met.add(name)
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
        """Send an empty message, while the connection is not proven yet.

        A queue that it comes to may have no leader: that of a gateway which is gone, made right before
        RabbitMQ was killed. Then it is refused, or never confirmed, but the others have it; and RabbitMQ 3.10
        does nothing more on that channel, so it has one of its own.
        """
        channel = await self._open_channel()
        with suppress(TimeoutError, DeliveryError):
            async with asyncio.timeout(TOLD_S):
                await channel.basic_publish(b"", exchange=exchange, properties=properties, wait=False)

    async def publish(
        self, body: bytes, properties: Properties, *, routing_key: str, exchange: str, confirm: bool
    ) -> None:
        """Send a message, once the broker does not block publishers; `confirm` waits until it has it safe."""
        await self._transport().ready()
        if self._is_doubted:
            await self._renew()
        publisher = self.publisher
        try:
            await publisher.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=confirm,
                wait=False,
            )
        except asyncio.CancelledError as error:
            if publisher is self.publisher or was_asked_to_stop():
                raise
            raise TimeoutError("its channel was given up: it confirmed nothing") from error

    def doubt(self, publisher: Channel) -> None:
        """A message was refused, or not confirmed in time: publish the next on another channel.

        The queue may be full, or slow. But if it had no leader when the first message for it came on a
        channel, RabbitMQ 3.10 refuses every message on that channel, for as long as it is open; and if it was
        deleted and made anew meanwhile, the channel may count on from the one before, and confirm nothing.
        """
        self._is_doubted |= publisher is self.publisher

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
        """Begin to take messages; to be called once the way is proven."""
        queue, channel = consumption.queue, await self._open_channel()
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self.give_up(f"the broker cancelled the consumer of `{queue}` (basic.cancel)")
        )
        consumer = self._consumers[queue] = Consumer(consumption, channel)
        try:
            async with asyncio.timeout(self.options.check_s):
                await consumer.begin()
        except TimeoutError as error:
            raise AMQPError(NO_LEADER.format(queue)) from error
        await consumer.check(self._control)

    async def stop_consuming(self) -> None:
        """Take no more messages; those that are here can still be acknowledged.

        A broker that blocks publishers does not hear of it before it goes on: it is not waited for.
        """
        self._stopping = [asyncio.create_task(consumer.stop()) for consumer in self._consumers.values()]
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=self.options.publish_timeout_s)

    async def acknowledge(self, queue: str, tag: int, *, multiple: bool) -> None:
        """Tell the broker that a message (and, with `multiple`, all before it) is dealt with."""
        await self._consumer(queue).acknowledge(tag, multiple=multiple)

    async def give_back(self, queue: str, tag: int, *, requeue: bool) -> None:
        """Hand a message back, or, without `requeue`, to the dead letters."""
        await self._consumer(queue).give_back(tag, requeue=requeue)

    async def prove(self) -> None:
        """Set up the canary, and have it come back a first time.

        RabbitMQ that is out of memory or disk may let it pass, and nothing after it: that is waited for.

        Raises: Blocked if it goes on to block publishers; TimeoutError.
        """
        await self._canary.begin()
        try:
            await self._check()
            async with asyncio.timeout(self.options.check_s):
                await self._transport().ready()
        except TimeoutError as error:
            if await self.is_blocked():
                raise Blocked from error
            raise

    async def watch(self) -> str:
        """Return why the connection is no good any more."""
        channels = [self._control, *(consumer.channel for consumer in self._consumers.values())]
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
                with closing_is_an_error():
                    if not await self.is_blocked():  # a blocked publisher's canary cannot come
                        await self._check()
        except Exception as error:  # whatever it is: another connection may do
            return str(error) or f"no message came through within {self.options.check_s:g} s"
        finally:
            for end in ends:
                end.cancel()

    def give_up(self, reason: str) -> None:
        """It is no good any more: `watch` returns the reason."""
        if not self._broken.done():
            self._broken.set_result(reason)

    async def close(self) -> None:
        """Let go of it; a broker that does not answer is not waited for. Nothing is delivered any more."""
        for consumer in self._consumers.values():
            consumer.is_over = True
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except (*ERRORS, asyncio.CancelledError):
            if was_asked_to_stop():
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
        channel = self.publisher = await self._open_channel()
        channel.closing.add_done_callback(
            lambda end: self.give_up(why(end)) if channel is self.publisher else None
        )

    async def _renew(self) -> None:
        """Publish on another channel, unless this one is young."""
        now_s, doubted = asyncio.get_running_loop().time(), self.publisher
        if now_s >= self._renewed_at_s + RENEW_S:
            self._is_doubted, self._renewed_at_s = False, now_s
            await self._open_publisher()
            await doubted.close()

    async def _open_channel(self) -> Channel:
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        return underlay

    def _consumer(self, queue: str) -> Consumer:
        if queue not in self._consumers:
            raise ChannelInvalidStateError(f"`{queue}` is not consumed yet")
        return self._consumers[queue]

    def _transport(self) -> Connection:
        if self._connection.transport is None:
            raise ChannelInvalidStateError("the connection is closed")
        transport = self._connection.transport.connection
        assert isinstance(transport, Connection)
        return transport

    async def _check(self) -> None:
        """Look: each queue has a consumer, what waits in it comes here, and a message comes back.

        Raises: an AMQPError (a queue is gone), TimeoutError.
        """
        async with asyncio.timeout(self.options.check_s):
            for consumer in list(self._consumers.values()):
                await consumer.check(self._control)
            await self._canary.fly()
        self._known.are_well()
