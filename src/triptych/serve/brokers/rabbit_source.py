"""The worker's end of RabbitMQ: see `topology`."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from triptych.errors import BrokerUnavailable, Overloaded
from triptych.serve.brokers.acknowledging import Acknowledging
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_consumer import Consumption
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.brokers.chores import Chores
from triptych.serve.brokers.job import Lease
from triptych.serve.brokers.options import BrokerOptions, RabbitOptions
from triptych.serve.brokers.topology import (
    DEAD,
    DONE,
    FAILED,
    PERSISTENT,
    RUNNING,
    TRANSIENT,
    Names,
    declare_jobs,
)

AT_ONCE_S = 0.05
AGAIN_S, KEPT_S = 0.5, 15.0  # an end that RabbitMQ does not take: when it is sent again, and for how long

log = logging.getLogger(__name__)


class RabbitSource:
    """See `Source`: the worker's end.

    Args:
        url: `amqp://user:password@host:port/vhost`.
    """

    def __init__(
        self, url: str, options: BrokerOptions | None = None, rabbit: RabbitOptions | None = None
    ) -> None:
        self.options, rabbit = options or BrokerOptions(), rabbit or RabbitOptions()
        self._names = Names(rabbit.prefix)
        consumption = Consumption(self._names.jobs, self._on_message, prefetch=self.options.in_flight)
        self.link = AmqpLink(
            url, rabbit, self._on_declare, [consumption], on_up=self._on_up, on_gone=self._on_gone
        )
        self._acknowledging = Acknowledging(self.link, self._names.jobs)
        self._waiting: deque[Lease] = deque()
        self._changed = asyncio.Event()
        self._held: dict[int, str] = {}  # where the answer of each lease goes, by its tag
        self._generation = 0  # connections gone so far: the same delivery tag comes again in each
        self._chores = Chores()
        self.redelivered = 0

    async def start(self) -> RabbitSource:
        """Begin to connect."""
        await self.link.start()
        return self

    async def take(self, demand: int) -> list[Lease]:
        """See `Source`. Nothing is handed out before the connection is proven."""
        while not self._waiting or not self.link.is_up:
            self._changed.clear()
            await self._changed.wait()
        leases = [self._waiting.popleft() for _ in range(min(demand, len(self._waiting)))]
        self._chores.start(self._say_running(leases))
        return leases

    async def ack(self, lease: Lease, result: bytes, *, failed: bool = False) -> bool:
        """See `Source`. The job is acknowledged once its result is confirmed.

        Raises: BrokerUnavailable: it will be handed out again.
        """
        if lease.tag not in self._held:
            return False
        await self._end(lease, FAILED if failed else DONE, result)
        return self._settle(lease)

    async def nack(self, lease: Lease) -> None:
        """See `Source`."""
        if self._held.pop(lease.tag, None):
            await self._acknowledging.give_back(self._delivery(lease))

    async def reject(self, lease: Lease, reason: str) -> None:
        """See `Source`. The reason travels as a result does, the job by the dead-letter exchange."""
        if lease.tag in self._held:
            log.error("job %s is given up: %s", lease.id, reason)
            await self._end(lease, DEAD, reason.encode())
            if self._held.pop(lease.tag, None):
                await self._acknowledging.give_back(self._delivery(lease), requeue=False)

    async def extend(self, lease: Lease) -> bool:
        """See `Source`: a lease here lasts as long as the connection."""
        return lease.tag in self._held

    async def close(self) -> None:
        """See `Source`."""
        await self._acknowledging.flush()
        await self._chores.stop()
        await self.link.close()

    async def _on_declare(self, connection: AmqpConnection) -> None:
        await declare_jobs(connection, self._names, self.options, self.link.token)

    def _on_message(self, message: DeliveredMessage) -> None:
        properties, tag = message.header.properties, message.delivery_tag
        assert tag is not None
        deliveries = 1 + int(str((properties.headers or {}).get("x-delivery-count", 0)))
        self._acknowledging.arrived(tag)
        lease = Lease(properties.message_id or "", message.body, deliveries, self._generation << 48 | tag)
        self._held[lease.tag] = properties.reply_to or ""
        self._waiting.append(lease)
        self.redelivered += deliveries > 1
        self._changed.set()

    def _on_up(self) -> None:
        self._changed.set()

    def _on_gone(self) -> None:
        """The broker hands out again whatever was here."""
        self._generation += 1
        self._waiting.clear()
        self._held.clear()
        self._acknowledging.forget()

    def _settle(self, lease: Lease) -> bool:
        if self._held.pop(lease.tag, None) is None:
            return False
        self._acknowledging.settle(self._delivery(lease))
        return True

    @staticmethod
    def _delivery(lease: Lease) -> int:
        return lease.tag & (2**48 - 1)

    async def _end(self, lease: Lease, kind: str, body: bytes) -> None:
        """Tell the job's gateway how it ended, if need be again: to have it done again would count as a try.

        Raises: BrokerUnavailable: it will be handed out again.
        """
        loop, why = asyncio.get_running_loop(), "the connection was lost"
        until_s = loop.time() + KEPT_S
        while lease.tag in self._held:
            try:
                return await self._reply(lease, kind, body)
            except (BrokerUnavailable, Overloaded) as error:
                why = str(error)
                log.warning("job %s: its end is not taken yet: %s", lease.id, why)
            if loop.time() > until_s:
                await self.nack(lease)
            await asyncio.sleep(AGAIN_S)
        raise BrokerUnavailable(f"does not take an end ({why})", where=self.link.where)

    async def _say_running(self, leases: list[Lease]) -> None:
        """Tell the gateways of what is not done at once."""
        await asyncio.sleep(AT_ONCE_S)
        for lease in leases:
            if lease.tag in self._held:
                with suppress(BrokerUnavailable, Overloaded):
                    await self._reply(lease, RUNNING, b"", confirm=False)

    async def _reply(self, lease: Lease, kind: str, body: bytes, *, confirm: bool = True) -> None:
        """Tell the job's gateway. One that has gone for good is told nothing."""
        properties = Basic.Properties(
            message_id=lease.id,
            message_type=kind,
            delivery_mode=PERSISTENT if confirm else TRANSIENT,
            headers={"deliveries": lease.deliveries},
        )
        to = self._held.get(lease.tag, "")
        await self.link.publish(body, properties, routing_key=to, confirm=confirm)
