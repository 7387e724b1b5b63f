"""One connection to RabbitMQ that heals: consuming, and proven by a canary, before it counts as up.

A plain connection and our own reconnecting: it counts as up only once each queue has its consumer and a
message sent through the broker has come back; both are looked at again every `check_s`. Whatever breaks (the
connection, a channel, a consumer cancelled by the broker, a queue that is gone, a canary that stays away) is
written to the log and ends in one way: everything is let go and set up anew, after a pause that grows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import aio_pika
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
    PublishError,
)
from pamqp.commands import Basic
from pamqp.common import FieldTable

from triptych.errors import BrokerUnavailable, Overloaded
from triptych.serve.brokers.options import RabbitOptions

ERRORS = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, asyncio.InvalidStateError)

log = logging.getLogger(__name__)
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


class AmqpLink:
    """Keeps one connection up until it is closed.

    Args:
        declare: called with the link on each new connection, before anything is consumed.
        consume: what to take messages from; `declare` may change it.
        on_up, on_lost: called when the connection has come up, and when it is gone: tags are void then.

    Attributes:
        created: queues found missing, and declared, since it was last up; `on_up` is the last to see them.
        token: tells this link from all others.
        reconnects: how often it came up again.
    """

    def __init__(
        self,
        url: str,
        options: RabbitOptions,
        declare: Callable[[AmqpLink], Awaitable[None]],
        consume: Sequence[Consumption],
        *,
        on_up: Callable[[], object] = lambda: None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.url, self.options, self.created = url, options, set[str]()
        self.reconnects, self.token = 0, secrets.token_hex(8)
        self._declare, self._consume, self._on_up, self._on_lost = declare, consume, on_up, on_lost
        self._connection: AbstractConnection | None = None
        self._publisher: Channel | None = None
        self._control: Channel | None = None
        self._channels: dict[str, Channel] = {}
        self._consumers: dict[str, str] = {}  # the tag of each queue's consumer
        self._up = asyncio.Event()
        self._broken: asyncio.Future[str] | None = None
        self._canary: asyncio.Future[None] | None = None
        self._canary_queue = ""
        self._keeper: asyncio.Task[None] | None = None
        self._why = "not connected yet"

    @property
    def is_up(self) -> bool:
        """Whether messages go and come."""
        return self._up.is_set()

    @property
    def where(self) -> str:
        """The address, without the password."""
        return str(aio_pika.connection.make_url(self.url).with_password(None).with_query(None))

    async def start(self) -> None:
        """Begin to connect; does not wait for it."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="rabbitmq")

    async def wait_up(self, timeout_s: float | None = None) -> None:
        """Return once it is up.

        Raises: BrokerUnavailable, with what is the matter, if it is not by then.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError as error:
            raise self.unavailable(self._why) from error

    async def close(self) -> None:
        """Let go of the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        await self._drop()

    def unavailable(self, why: str) -> BrokerUnavailable:
        """The error of a broker that is away."""
        return BrokerUnavailable(f"is away ({why})", where=self.where, remedy="try again later")

    async def publish(
        self,
        body: bytes,
        properties: Properties,
        *,
        routing_key: str,
        exchange: str = "",
        confirm: bool = True,
    ) -> None:
        """Send a message; with `confirm`, return once the broker has it safe.

        Raises: BrokerUnavailable, also when it is not confirmed in time; Overloaded if the queue is full.
        """
        channel = self._publisher
        if channel is None or not self._up.is_set():
            raise self.unavailable(self._why)
        try:
            async with asyncio.timeout(self.options.publish_timeout_s):
                await self._unblocked()  # not while the broker blocks publishers
                await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=properties,
                    mandatory=confirm,
                    wait=False,
                )
        except PublishError as error:
            self._break(f"nothing takes messages for `{routing_key}` any more")
            raise self.unavailable(f"no queue for `{routing_key}`") from error
        except DeliveryError as error:
            raise Overloaded("its queue is full", where=self.where, remedy="try again later") from error
        except TimeoutError as error:
            why = f"nothing was confirmed within {self.options.publish_timeout_s:g} s"
            if await self.is_blocked():
                why = "it blocks publishers: it is out of memory or disk (connection.blocked)"
                log.error("RabbitMQ at %s %s", self.where, why)
            raise self.unavailable(why) from error
        except ERRORS as error:
            raise self.unavailable(str(error) or type(error).__name__) from error

    async def is_blocked(self) -> bool:
        """Whether the broker has said `connection.blocked`, and not taken it back."""
        try:
            async with asyncio.timeout(0.01):
                await self._unblocked()
        except TimeoutError:
            return True
        return False

    async def _unblocked(self) -> None:
        if self._connection is not None:
            await self._transport().ready()

    def _transport(self) -> Connection:
        assert self._connection is not None
        assert self._connection.transport is not None
        transport = self._connection.transport.connection
        assert isinstance(transport, Connection)
        return transport

    async def acknowledge(self, queue: str, tag: int, *, multiple: bool = False) -> None:
        """Tell the broker that a message (and, with `multiple`, all before it) is dealt with."""
        await self._channels[queue].basic_ack(tag, multiple=multiple, wait=False)

    async def give_back(self, queue: str, tag: int, *, requeue: bool = True) -> None:
        """Hand a message back, or, without `requeue`, to the dead letters."""
        await self._channels[queue].basic_nack(tag, requeue=requeue, wait=False)

    async def stop_consuming(self) -> None:
        """Take no more messages; those that are here can still be acknowledged."""
        self._consume, consumers = (), self._consumers
        self._consumers = {}
        for queue, tag in consumers.items():
            with suppress(*ERRORS, KeyError):
                await self._channels[queue].basic_cancel(tag)

    async def declare_queue(self, name: str, arguments: FieldTable | None = None) -> None:
        """Make the durable queue `name` unless it is there; `created` tells which had to be made."""
        channel = await self._open()
        try:
            await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            self.created.add(name)
            channel = await self._open()
            await channel.queue_declare(name, durable=True, arguments=arguments or {})
        await channel.close()

    async def declare_private_queue(self, name: str, expires_s: float | None = None) -> None:
        """Make a queue that nobody shares: gone with this connection, or unused for `expires_s`."""
        assert self._control is not None
        if expires_s is None:
            await self._control.queue_declare(name, exclusive=True, auto_delete=True)
        else:
            await self._control.queue_declare(name, arguments={"x-expires": int(expires_s * 1000)})

    async def tell(self, exchange: str, properties: Properties) -> None:
        """Send an empty message while declaring, before the link is up."""
        assert self._control is not None
        await self._control.basic_publish(b"", exchange=exchange, properties=properties, wait=False)

    async def declare_exchange(self, name: str, kind: str) -> None:
        """Make the durable exchange `name` unless it is there."""
        assert self._control is not None
        await self._control.exchange_declare(name, exchange_type=kind, durable=True)

    async def bind(self, queue: str, exchange: str, routing_key: str = "") -> None:
        """Have `exchange` copy its messages of `routing_key` into `queue`."""
        assert self._control is not None
        await self._control.queue_bind(queue, exchange, routing_key)

    async def _keep(self) -> None:
        failures = ups = 0
        while True:
            try:
                async with asyncio.timeout(self.options.connect_timeout_s):
                    await self._connect()
            except ERRORS as error:
                self._why = reason = str(error) or f"no answer within {self.options.connect_timeout_s:g} s"
                await self._drop()
                pause_s = pause(failures, self.options)
                failures += 1
                log.error("RabbitMQ at %s: %s; next try in %.1f s", self.where, reason, pause_s)
                await asyncio.sleep(pause_s)
                continue
            failures, ups = 0, ups + 1
            self.reconnects = ups - 1
            self._up.set()
            log.info("RabbitMQ at %s: up, and a message came through", self.where)
            self._on_up()
            self.created.clear()
            self._why = await self._watch()
            self._up.clear()
            log.error("RabbitMQ at %s: lost: %s", self.where, self._why)
            await self._drop()
            self._on_lost()

    async def _connect(self) -> None:
        self._broken = asyncio.get_running_loop().create_future()
        url = aio_pika.connection.make_url(self.url)
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=self.options.heartbeat_s)
        self._connection = await aio_pika.connect(url)
        self._control, self._publisher = await self._open(), await self._open()
        await self._declare(self)
        for consumption in self._consume:
            await self._start_consuming(consumption)
        self._canary_queue = f"{self.options.prefix}.canary.{os.getpid()}.{random.getrandbits(64):x}"
        await self._control.queue_declare(self._canary_queue, exclusive=True, auto_delete=True)
        await self._control.basic_consume(self._canary_queue, self._on_canary, no_ack=True)
        await self._check()

    async def _open(self) -> Channel:
        assert self._connection is not None
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        return underlay

    async def _start_consuming(self, consumption: Consumption) -> None:
        async def on_message(message: DeliveredMessage) -> None:
            consumption.on_message(message)

        channel = self._channels[consumption.queue] = await self._open()
        await channel.basic_qos(prefetch_count=consumption.prefetch)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._break(
                f"the broker cancelled the consumer of `{consumption.queue}` (basic.cancel)"
            )
        )
        started = await channel.basic_consume(consumption.queue, on_message, no_ack=consumption.no_ack)
        self._consumers[consumption.queue] = str(started.consumer_tag)

    async def _check(self) -> None:
        """Look: each queue has a consumer, and a message comes back.

        Raises: an AMQPError (a queue is gone), TimeoutError.
        """
        assert self._control is not None
        async with asyncio.timeout(self.options.check_s):
            for consumption in self._consume:
                found = await self._control.queue_declare(consumption.queue, passive=True)
                if not found.consumer_count:
                    raise AMQPError(f"`{consumption.queue}` has no consumer")
            self._canary = asyncio.get_running_loop().create_future()
            await self._control.basic_publish(b"", routing_key=self._canary_queue, wait=False)
            await self._canary

    async def _on_canary(self, message: DeliveredMessage) -> None:
        if self._canary is not None and not self._canary.done():
            self._canary.set_result(None)

    async def _watch(self) -> str:
        """Return why the connection is no good any more."""
        assert self._broken is not None
        channels = [self._control, self._publisher, *self._channels.values()]
        ends: list[asyncio.Future[object]] = [channel.closing for channel in channels if channel is not None]
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

    def _break(self, reason: str) -> None:
        if self._broken is not None and not self._broken.done():
            self._broken.set_result(reason)

    async def _drop(self) -> None:
        """Let go of everything of this connection."""
        connection, self._connection = self._connection, None
        self._publisher = self._control = None
        self._channels, self._consumers = {}, {}
        if connection is not None:
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except (*ERRORS, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise


def why(end: asyncio.Future[object]) -> str:
    """What ended it."""
    if end.cancelled():
        return "closed"
    error = end.exception()
    return str(end.result()) if error is None else f"{type(error).__name__}: {error}"


def pause(failures: int, options: RabbitOptions) -> float:
    """Seconds until the next try: growing, and never the same for all who wait.

    >>> 0.5 <= pause(0, RabbitOptions()) <= 1.0 and 15 <= pause(9, RabbitOptions()) <= 30
    True
    """
    longest_s = min(options.longest_backoff_s, options.backoff_s * 2.0 ** min(failures, 30))
    return longest_s * random.uniform(0.5, 1.0)
