"""A worker machine: takes batches and texts from RabbitMQ, has its processes compute them, and answers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from triptych import __version__
from triptych.bundle.manifest import MANIFEST
from triptych.errors import BrokerUnavailable, Overloaded
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_consumer import Consumption
from triptych.serve.brokers.amqp_errors import ERRORS
from triptych.serve.brokers.amqp_link import AmqpLink, RecipientGone
from triptych.serve.catalog import Catalog
from triptych.serve.generation import Pool
from triptych.serve.remote.protocol import (
    ANNOUNCE_S,
    LOST,
    MAX_LOST,
    OPTIONS,
    TRANSIENT,
    Announcement,
    Names,
    Offer,
    declare_work,
)
from triptych.serve.remote.task import NOT_HERE, BatchTask, Task, TextTask

RETRY_S = 0.1

log = logging.getLogger(__name__)


class WorkerService:
    """Feeds a pool from RabbitMQ.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        catalog: what the pool has loaded.
        ways: the fingerprint of each model, see `fingerprint`.
        batches, texts: how many of each are taken at a time.
    """

    def __init__(
        self, url: str, catalog: Catalog, ways: Mapping[str, str], pool: Pool, *, batches: int, texts: int
    ) -> None:
        self.id, self._pool = uuid.uuid4().hex, pool
        self._names, self._started_at_s = Names(OPTIONS.prefix), time.time()
        self._offers = [
            Offer((model.folder / MANIFEST).read_bytes(), model.created_at_s, ways[model.name])
            for model in catalog.values()
        ]
        self._work: list[Consumption] = []
        for model in catalog.values():
            key = (model.name, model.version, ways[model.name])
            self._take(self._names.batches(*key), BatchTask, batches)
            if model.is_text:
                self._take(self._names.texts(*key), TextTask, texts)
        self._consume: list[Consumption] = []
        self.link = AmqpLink(url, OPTIONS, self._on_declare, self._consume, on_gone=self._on_gone)
        self._queue = ""  # where cancellations come: a new one for each connection
        self._tasks: dict[asyncio.Task[None], str] = {}  # what is under way, and its id
        self._unwanted: set[asyncio.Task[None]] = set()  # of that, what nobody waits for
        self._announcing: asyncio.Task[None] | None = None
        self._announced = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect, and take work once that is done."""
        await self.link.start()
        self._announcing = asyncio.create_task(self._announce(), name="announce")

    async def announced(self) -> None:
        """Return once the gateways have been told."""
        await self._announced.wait()

    async def wait(self) -> None:
        """Return if it cannot go on."""
        assert self._announcing is not None
        await asyncio.wait([self._announcing])

    async def close(self, timeout_s: float) -> None:
        """Take no more work, finish what was taken, say goodbye; what is not done by then goes to others."""
        if self._announcing is not None:
            self._announcing.cancel()
        await self._tell(leaving=True)
        await self.link.stop_consuming()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
        await self.link.close()

    def _take(self, queue: str, kind: type[Task], prefetch: int) -> None:
        self._work.append(Consumption(queue, partial(self._on_work, queue, kind), prefetch=prefetch))

    async def _on_declare(self, connection: AmqpConnection) -> None:
        self._queue = self._names.private("worker", uuid.uuid4().hex)
        self._consume[:] = [Consumption(self._queue, self._on_cancel, no_ack=True), *self._work]
        await connection.declare_exchange(self._names.workers, "fanout")
        await connection.declare_private_queue(self._queue)
        await declare_work(connection, [consumption.queue for consumption in self._work])

    async def _announce(self) -> None:
        while True:
            await self.link.wait_up()
            await self._tell()
            self._announced.set()
            await asyncio.sleep(ANNOUNCE_S)

    async def _tell(self, *, leaving: bool = False) -> None:
        told = Announcement(
            __version__, self.id, self._started_at_s, self._offers, self._pool.workers(), leaving
        )
        properties = Basic.Properties(delivery_mode=TRANSIENT)
        body = msgspec.msgpack.encode(told)
        try:
            await self.link.publish(
                body, properties, exchange=self._names.workers, routing_key="", confirm=False
            )
        except (BrokerUnavailable, Overloaded) as error:
            log.warning("could not announce: %s", error)

    def _on_work(self, queue: str, kind: type[Task], message: DeliveredMessage) -> None:
        work = kind(message, self._pool, self._reply)
        task = asyncio.create_task(self._do(work, queue), name=f"work {work.id}")
        self._tasks[task] = work.id
        task.add_done_callback(self._forget)

    def _on_cancel(self, message: DeliveredMessage) -> None:
        """Nobody reads this text any more."""
        for task, id in self._tasks.items():
            if id == message.header.properties.correlation_id:
                self._unwanted.add(task)
                task.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._unwanted.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("unexpected %s", type(error).__name__, exc_info=error)

    def _on_gone(self) -> None:
        """The broker hands out again whatever was here."""
        for task in self._tasks:
            task.cancel()

    async def _do(self, work: Task, queue: str) -> None:
        """One piece of work, from its delivery to its acknowledgement. Left alone, it goes to another worker
        as soon as this one's connection ends.
        """
        try:
            if work.lost >= MAX_LOST:
                log.error("work that %d workers were lost with goes back to its gateway", work.lost)
                await self._reply(work, LOST, str(work.lost).encode())
            else:
                if work.lost:
                    log.warning("work that %d worker(s) were lost with is done here", work.lost)
                await work.run()
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._unwanted:
                raise
        except RecipientGone:
            log.info("the gateway that had asked for %s is gone", work.id)
        except NOT_HERE as error:
            log.warning("work %s goes to another worker: %s", work.id, error)
            return
        with suppress(KeyError, *ERRORS):  # the connection is gone: another worker is handed it
            await self.link.acknowledge(queue, work.tag)

    async def _reply(self, work: Task, kind: str, body: bytes, part: Mapping[str, int] | None = None) -> None:
        """Answer the gateway that asked; as long as anybody waits, also while RabbitMQ takes nothing.

        Raises: RecipientGone if the gateway is gone.
        """
        properties = Basic.Properties(
            correlation_id=work.id,
            message_type=kind,
            reply_to=self._queue,
            headers=dict(part or {}),
            delivery_mode=TRANSIENT,
        )
        while True:
            try:
                await self.link.wait_up(work.left_s())  # work arrives before the link counts as up
                await self.link.publish(body, properties, routing_key=work.reply_to, private=True)
                return
            except (BrokerUnavailable, Overloaded) as error:
                if work.left_s() <= 0:
                    log.warning("the answer to %s could not be given in time: %s", work.id, error)
                    return
                await asyncio.sleep(RETRY_S)
