"""The gateway's end of RabbitMQ: see `topology`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable

from triptych.errors import BrokerUnavailable, NotFoundError, Overloaded, StoreDamaged
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_consumer import Consumption
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.brokers.chores import Chores
from triptych.serve.brokers.intaking import Intaking
from triptych.serve.brokers.job import BrokerStatistics, Job, Record, State
from triptych.serve.brokers.options import BrokerOptions, RabbitOptions
from triptych.serve.brokers.sqlite import SqliteBroker
from triptych.serve.brokers.topology import (
    DEAD,
    DONE,
    FAILED,
    PERSISTENT,
    RECREATED,
    RUNNING,
    Names,
    declare_jobs,
)

INTAKE = 256  # results that may be on their way into the store

log = logging.getLogger(__name__)


class RabbitIntake:
    """See `Intake`: the gateway's end.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        store: remembers this gateway's jobs and results; its name is the gateway's.
    """

    def __init__(
        self,
        url: str,
        store: SqliteBroker,
        options: BrokerOptions | None = None,
        rabbit: RabbitOptions | None = None,
    ) -> None:
        self.options, rabbit = options or BrokerOptions(), rabbit or RabbitOptions()
        self._store, self._names = store, Names(rabbit.prefix, store.name)
        self._intaking = Intaking(self._note)
        consume = [Consumption(self._names.results, self._intaking.arrived, prefetch=INTAKE)]
        self.link = AmqpLink(
            url, rabbit, self._on_declare, consume, on_up=self._on_up, on_gone=self._intaking.forget
        )
        self._chores = Chores()
        self._storing: dict[str, asyncio.Event] = {}  # sent, and not written down yet

    async def start(self) -> RabbitIntake:
        """Begin to connect."""
        self._chores.start(self._intaking.run(self.link, self._names.results))
        await self.link.start()
        return self

    async def publish(self, job: Job) -> str:
        """See `Intake`. First RabbitMQ confirms, then the store."""
        earlier = await self._store.earlier(job) if job.key else None
        if earlier is not None:
            return earlier
        with self._being_stored(job.id):
            await self._send(job.id, job.body)
            return await self._store.publish(job)

    async def get(self, id: str) -> Record:
        """See `Intake`."""
        return await self._store.get(id)

    async def cancel(self, id: str) -> Record:
        """See `Intake`. A worker may still compute it."""
        return await self._store.cancel(id)

    async def dead_letters(self, limit: int = 100) -> Sequence[Record]:
        """See `Intake`."""
        return await self._store.dead_letters(limit)

    async def requeue(self, id: str) -> Record:
        """See `Intake`."""
        record = await self._store.get(id)
        with self._being_stored(id):
            if record.state == "dead":
                await self._send(id, record.body)
            return await self._store.requeue(id)

    async def statistics(self) -> BrokerStatistics:
        """See `Intake`: of this gateway's jobs."""
        found = await self._store.statistics()
        return msgspec.structs.replace(found, reconnects=self.link.reconnects)

    async def close(self) -> None:
        """See `Intake`."""
        await self._chores.stop()
        await self.link.close()
        await self._store.close()

    async def _send(self, id: str, body: bytes) -> None:
        properties = Basic.Properties(message_id=id, delivery_mode=PERSISTENT, reply_to=self._names.results)
        await self.link.publish(body, properties, exchange=self._names.work, routing_key=self._names.gateway)

    @contextmanager
    def _being_stored(self, id: str) -> Iterator[None]:
        """Meanwhile what comes for `id` waits: a worker may be quicker than the store."""
        stored = self._storing[id] = asyncio.Event()
        try:
            yield
        finally:
            del self._storing[id]
            stored.set()

    async def _on_declare(self, connection: AmqpConnection) -> None:
        names, expires_ms = self._names, int(self.options.retention_s * 1000)
        await connection.declare_exchange(names.gateways, "fanout")
        arguments: FieldTable = {"x-queue-type": "quorum", "x-expires": expires_ms}
        await connection.declare_queue(names.results, arguments)
        await connection.bind(names.results, names.gateways)
        await declare_jobs(connection, names, self.options, self.link.token)
        await connection.bind(names.results, names.dead_letters, names.gateway)

    def _on_up(self) -> None:
        if self.link.created:
            self._chores.start(self._send_unfinished())

    async def _send_unfinished(self) -> None:
        """A queue had been lost: send again what has not ended. What runs twice has one result."""
        for stored in list(self._storing.values()):  # the lost queue may have confirmed these
            await stored.wait()
        records = await self._store.unfinished()
        if records:
            log.error("RabbitMQ had lost a queue: %d unfinished jobs are sent again", len(records))
        for record in records:
            await self._send_again(record)

    async def _send_again(self, record: Record) -> None:
        """Send it as soon as RabbitMQ takes it."""
        while True:
            try:
                return await self._send(record.id, record.body)
            except (BrokerUnavailable, Overloaded) as error:
                log.error("job %s could not be sent again yet: %s", record.id, error)
            await asyncio.sleep(self.link.options.backoff_s)
            await self.link.wait_up()

    async def _note(self, message: DeliveredMessage) -> None:
        """Write down what a worker, or RabbitMQ, says of a job."""
        properties = message.header.properties
        id, kind, headers = properties.message_id or "", properties.message_type, properties.headers or {}
        if id in self._storing:
            await self._storing[id].wait()
        deliveries = int(str(headers.get("deliveries", headers.get("x-delivery-count", 0))))
        if kind == RECREATED:
            if id != self.link.token:  # what this link made anew was seen to when it came up
                self._chores.start(self._send_unfinished())
        elif kind == RUNNING:
            await self._store.mark_running(id, deliveries)
        elif kind in (DONE, FAILED):
            state: State = "failed" if kind == FAILED else "done"
            if not await self._store.settle(id, state, result=message.body, deliveries=deliveries):
                await self._drop(id, message.body, deliveries)
        elif kind == DEAD:
            await self._store.settle(id, "dead", reason=message.body.decode(), deliveries=deliveries)
        else:  # the job itself, from the dead-letter exchange
            cause = str(headers.get("x-first-death-reason", "unknown"))
            await self._store.settle(
                id, "dead", reason=f"RabbitMQ gave it up: {cause}", deliveries=deliveries
            )

    async def _drop(self, id: str, result: bytes, deliveries: int) -> None:
        """Say that a job ran twice, or for nobody: its first end stays."""
        try:
            first = await self._store.get(id)
        except (NotFoundError, StoreDamaged) as error:
            return log.info("a result is dropped: %s", error)
        what = "has the same bytes"
        if first.state in ("cancelled", "dead"):
            what = f"came after it was {first.state}"
        elif first.result != result:
            what = "differs"
        log.info("job %s had ended: another result (delivery %d) %s and is dropped", id, deliveries, what)
