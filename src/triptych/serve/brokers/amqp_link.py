"""A link to RabbitMQ that heals: proven by a canary, and consuming, before it counts as up.

A plain connection and our own reconnecting: it counts as up only once a message sent through the broker has
come back and each queue has its consumer; both are looked at again every `check_s`. The canary comes first:
what is handed out over a connection that then fails counts as a try of it. Whatever breaks (the connection, a
channel, a consumer cancelled by the broker, a queue that is gone, a canary that stays away) is written to the
log and ends in one way: everything is let go and set up anew, after a pause that grows.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence

import aio_pika
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError

from triptych.errors import BrokerUnavailable, Overloaded
from triptych.serve.brokers.amqp_address import shown
from triptych.serve.brokers.amqp_connection import AmqpConnection, Properties
from triptych.serve.brokers.amqp_consumer import Consumption
from triptych.serve.brokers.amqp_errors import ERRORS, Blocked, closing_is_an_error, was_asked_to_stop
from triptych.serve.brokers.known_queues import KnownQueues
from triptych.serve.brokers.options import RabbitOptions

log = logging.getLogger(__name__)


class RecipientGone(Exception):
    """The private queue that a message was for is gone, and so is whoever had made it."""


class AmqpLink:
    """Keeps one connection up until it is closed.

    Args:
        declare: called with each new connection, before anything is consumed.
        consume: what to take messages from; `declare` may change it.
        on_up, on_lost: called when the connection has come up, and when one that had is lost.
        on_gone: called when any connection is gone, also one that never came up: tags are void then, and what
            it delivered comes again.

    Attributes:
        created: queues found missing, and declared, since it was last up; `on_up` is the last to see them.
        token: tells this link from all others.
        reconnects: how often it came up again.
    """

    def __init__(
        self,
        url: str,
        options: RabbitOptions,
        declare: Callable[[AmqpConnection], Awaitable[None]],
        consume: Sequence[Consumption],
        *,
        on_up: Callable[[], object] = lambda: None,
        on_lost: Callable[[], object] = lambda: None,
        on_gone: Callable[[], object] = lambda: None,
    ) -> None:
        self.url, self.where = url, shown(url)
        self.options, self.created = options, set[str]()
        self.reconnects, self.token = 0, secrets.token_hex(8)
        self._declare, self._consume = declare, consume
        self._on_up, self._on_lost, self._on_gone = on_up, on_lost, on_gone
        self._known = KnownQueues()
        self._connection: AmqpConnection | None = None
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._down.set()
        self._keeper: asyncio.Task[None] | None = None
        self._why = "not connected yet"

    @property
    def is_up(self) -> bool:
        """Whether messages go and come."""
        return self._up.is_set()

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

    async def wait_down(self) -> None:
        """Return once it is down; it may have come up again since."""
        await self._down.wait()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._take_down("closed")
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
        private: bool = False,
    ) -> None:
        """Send a message; return once the broker has it.

        Args:
            confirm: that it must have come into a queue. If there is none the connection is set up anew, and
                its queues declared.
            private: that it goes to somebody's private queue, which is gone when he is.

        Raises: BrokerUnavailable, also when it is not confirmed in time; Overloaded if the queue is full;
            RecipientGone if a private queue is gone.
        """
        connection = self._connection
        if connection is None or not self._up.is_set():
            raise self.unavailable(self._why)
        publisher = connection.publisher
        try:
            async with asyncio.timeout(self.options.publish_timeout_s):
                await connection.publish(
                    body, properties, routing_key=routing_key, exchange=exchange, confirm=confirm
                )
        except PublishError as error:
            if private:
                raise RecipientGone(routing_key) from error
            self._give_up(connection, f"nothing takes messages for `{routing_key}` any more")
            raise self.unavailable(f"no queue for `{routing_key}`") from error
        except DeliveryError as error:
            connection.doubt(publisher)
            raise Overloaded("its queue is full", where=self.where, remedy="try again later") from error
        except TimeoutError as error:
            why = f"nothing was confirmed within {self.options.publish_timeout_s:g} s"
            if await connection.is_blocked():
                why = str(Blocked())
                log.error("RabbitMQ at %s %s", self.where, why)
            connection.doubt(publisher)
            raise self.unavailable(why) from error
        except (*ERRORS, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and was_asked_to_stop():
                raise
            # aiormq cancels what waits on a connection that is closed
            self._give_up(connection, str(error) or "the connection was closed")
            raise self.unavailable(self._why) from error

    async def acknowledge(self, queue: str, tag: int, *, multiple: bool = False) -> None:
        """Tell the broker that a message (and, with `multiple`, all before it) is dealt with.

        Raises: one of `ERRORS` if the connection is gone, and the tag with it.
        """
        with closing_is_an_error():
            async with self._in_time():
                await self._connected().acknowledge(queue, tag, multiple=multiple)

    async def give_back(self, queue: str, tag: int, *, requeue: bool = True) -> None:
        """Hand a message back, or, without `requeue`, to the dead letters; raises what `acknowledge` does."""
        with closing_is_an_error():
            async with self._in_time():
                await self._connected().give_back(queue, tag, requeue=requeue)

    async def stop_consuming(self) -> None:
        """Take no more messages; those that are here can still be acknowledged."""
        self._consume = ()
        if self._connection is not None:
            await self._connection.stop_consuming()

    def _in_time(self) -> asyncio.Timeout:
        """What does not wait for an answer takes no time, but aiormq may wait for ever to send it over a
        connection that has just ended.
        """
        return asyncio.timeout(self.options.publish_timeout_s)

    def _connected(self) -> AmqpConnection:
        if self._connection is None:
            raise ChannelInvalidStateError("the connection is gone")
        return self._connection

    async def _keep(self) -> None:
        failures = ups = 0
        while True:
            try:
                with closing_is_an_error():
                    async with asyncio.timeout(self.options.connect_timeout_s):
                        connection = await self._connect()
            except Exception as error:  # whatever it is: the next try may succeed
                self._why = reason = str(error) or f"no answer within {self.options.connect_timeout_s:g} s"
                await self._drop()
                if isinstance(error, Blocked):
                    failures = 0  # it is there, and may take messages again at any moment
                pause_s = pause(failures, self.options)
                failures += 1
                unknown = None if isinstance(error, ERRORS) else error
                log.error(
                    "RabbitMQ at %s: %s; next try in %.1f s", self.where, reason, pause_s, exc_info=unknown
                )
                await asyncio.sleep(pause_s)
                continue
            failures, ups = 0, ups + 1
            self.reconnects = ups - 1
            self._down.clear()
            self._up.set()
            log.info("RabbitMQ at %s: up, and a message came through", self.where)
            if self.created and ups > 1:
                log.error("RabbitMQ at %s: made anew, it was gone: %s", self.where, ", ".join(self.created))
            self._on_up()
            self.created.clear()
            self._take_down(await connection.watch())
            log.error("RabbitMQ at %s: lost: %s", self.where, self._why)
            await self._drop()
            self._on_lost()

    def _give_up(self, connection: AmqpConnection, reason: str) -> None:
        """A connection is no good any more: nothing more is sent over it, before `_keep` has seen to it."""
        if connection is self._connection:
            self._take_down(reason)
        connection.give_up(reason)

    def _take_down(self, reason: str) -> None:
        self._why = reason
        self._up.clear()
        self._down.set()

    async def _connect(self) -> AmqpConnection:
        url = aio_pika.connection.make_url(self.url)
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=self.options.heartbeat_s)
        plain = await aio_pika.connect(url)
        self._connection = connection = AmqpConnection(plain, self.options, self.created, self._known)
        await connection.open()
        await self._declare(connection)
        await connection.prove()
        for consumption in self._consume:
            await connection.consume(consumption)
        return connection

    async def _drop(self) -> None:
        """Let go of the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._on_gone()


def pause(failures: int, options: RabbitOptions) -> float:
    """Seconds until the next try: growing, and never the same for all who wait.

    >>> 0.5 <= pause(0, RabbitOptions()) <= 1.0 and 15 <= pause(9, RabbitOptions()) <= 30
    True
    """
    longest_s = min(options.longest_backoff_s, options.backoff_s * 2.0 ** min(failures, 30))
    return longest_s * random.uniform(0.5, 1.0)
