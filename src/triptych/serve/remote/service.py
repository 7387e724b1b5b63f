"""A worker machine: takes batches and texts from RabbitMQ, has its processes compute them, and answers."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from triptych.bundle.manifest import MANIFEST
from triptych.errors import (
    BrokerUnavailable,
    Draining,
    Overloaded,
    Poison,
    SupervisorFailed,
    TriptychError,
    WorkerDied,
)
from triptych.serve.brokers.amqp_connection import ERRORS, AmqpConnection, Consumption
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.catalog import Catalog
from triptych.serve.generation import Pool
from triptych.serve.remote.protocol import (
    ANNOUNCE_S,
    ANSWERS,
    DELIVERIES,
    FAILED,
    MAX_LOST,
    OPTIONS,
    PIECES,
    TIMEOUT,
    TRANSIENT,
    Announcement,
    Names,
    Offer,
    Pieces,
    declare_work,
)
from triptych.serve.supervise.failure import Failure

NOT_HERE = (Draining, SupervisorFailed, Overloaded)  # another machine may do it

log = logging.getLogger(__name__)
encode = msgspec.msgpack.Encoder().encode


class WorkerService:
    """Feeds a pool from RabbitMQ.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        catalog: what the pool has loaded.
        batches, texts: how many of each are taken at a time.
    """

    def __init__(self, url: str, catalog: Catalog, pool: Pool, *, batches: int, texts: int) -> None:
        self.id, self._catalog, self._pool = uuid.uuid4().hex, catalog, pool
        self._names, self._started_at_s = Names(OPTIONS.prefix), time.time()
        self._versions = {model.name: model.version for model in catalog.values()}
        self._offers = [
            Offer((model.folder / MANIFEST).read_bytes(), model.created_at_s) for model in catalog.values()
        ]
        consume = [Consumption(self._names.worker(self.id), self._on_cancel, no_ack=True)]
        for name, version in self._versions.items():
            for queue, answer, prefetch in (
                (self._names.batches(name, version), self._answer_batch, batches),
                (self._names.texts(name, version), self._answer_text, texts),
            ):
                consume.append(Consumption(queue, partial(self._on_work, queue, answer), prefetch=prefetch))
        self.link = AmqpLink(url, OPTIONS, self._on_declare, consume, on_lost=self._on_lost)
        self._work: dict[str, asyncio.Task[None]] = {}
        self._unwanted: set[str] = set()  # of that work, what nobody waits for
        self._announcing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect, and take work once that is done."""
        await self.link.start()
        self._announcing = asyncio.create_task(self._announce(), name="announce")

    async def close(self, timeout_s: float) -> None:
        """Take no more work, finish what was taken, say goodbye; what is not done by then goes to others."""
        if self._announcing is not None:
            self._announcing.cancel()
        await self._tell(leaving=True)
        await self.link.stop_consuming()
        if self._work:
            await asyncio.wait(self._work.values(), timeout=timeout_s)
        await self.link.close()
        self._on_lost()

    async def _on_declare(self, connection: AmqpConnection) -> None:
        await connection.declare_exchange(self._names.workers, "fanout")
        await connection.declare_private_queue(self._names.worker(self.id), expires_s=60.0)
        await declare_work(connection, self._names, self._versions)

    async def _announce(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(ANNOUNCE_S)

    async def _tell(self, *, leaving: bool = False) -> None:
        told = Announcement(self.id, self._started_at_s, self._offers, self._pool.workers(), leaving)
        properties = Basic.Properties(delivery_mode=TRANSIENT)
        try:
            if self.link.is_up:
                await self.link.publish(
                    encode(told), properties, exchange=self._names.workers, routing_key="", confirm=False
                )
        except (BrokerUnavailable, Overloaded) as error:
            log.warning("could not announce: %s", error)

    def _on_work(
        self,
        queue: str,
        answer: Callable[[DeliveredMessage, float], Coroutine[Any, Any, None]],
        message: DeliveredMessage,
    ) -> None:
        id = message.header.properties.correlation_id or ""
        if id in self._work:  # sent again while it is being done here: the older answer serves both
            id = f"{id} {message.delivery_tag}"
        task = self._work[id] = asyncio.create_task(self._do(id, queue, answer, message), name=f"work {id}")
        task.add_done_callback(lambda _: self._forget(id))

    def _on_cancel(self, message: DeliveredMessage) -> None:
        """Nobody reads this text any more."""
        id = message.header.properties.correlation_id or ""
        if task := self._work.get(id):
            self._unwanted.add(id)
            task.cancel()

    def _forget(self, id: str) -> None:
        self._work.pop(id, None)
        self._unwanted.discard(id)

    def _on_lost(self) -> None:
        """The broker hands out again whatever was here."""
        for task in self._work.values():
            task.cancel()

    async def _do(
        self,
        id: str,
        queue: str,
        answer: Callable[[DeliveredMessage, float], Coroutine[Any, Any, None]],
        message: DeliveredMessage,
    ) -> None:
        """One piece of work, from its delivery to its acknowledgement."""
        tag, headers = message.delivery_tag, message.header.properties.headers or {}
        assert tag is not None
        deadline_s = asyncio.get_running_loop().time() + int(str(headers.get(TIMEOUT, 60_000))) / 1000
        lost = int(str(headers.get(DELIVERIES, 0)))
        if lost:
            log.warning("work that %d machine(s) did not finish is done here", lost)
        try:
            try:
                if lost > MAX_LOST:
                    what = f"{lost} machines were lost with it"
                    await self._fail(message, WorkerDied(what) if "batches" in queue else Poison(what))
                else:
                    await answer(message, deadline_s)
            except asyncio.CancelledError:
                if id not in self._unwanted:
                    raise
            except NOT_HERE:
                await asyncio.sleep(0.1)
                await self.link.give_back(queue, tag)
                return
            await self.link.acknowledge(queue, tag)
        except (BrokerUnavailable, *ERRORS) as error:
            log.warning("an answer did not get through, another worker is asked: %s", error)
            with suppress(*ERRORS):
                await self.link.give_back(queue, tag)

    async def _answer_batch(self, message: DeliveredMessage, deadline_s: float) -> None:
        try:
            payloads = msgspec.msgpack.decode(message.body, type=list[bytes])
            answers = await self._pool.run(payloads, deadline_s=deadline_s)
        except NOT_HERE:
            raise
        except Exception as error:
            await self._fail(message, error)
        else:
            await self._reply(message, ANSWERS, encode(answers))

    async def _answer_text(self, message: DeliveredMessage, deadline_s: float) -> None:
        stream = self._pool.stream(message.body, deadline_s=deadline_s)
        sender = PieceSender(partial(self._reply, message, PIECES))
        try:
            async for piece in stream:
                sender.put(piece)
        except NOT_HERE:
            raise
        except TriptychError as error:
            await sender.end(Failure.of(error))
        else:
            await sender.end()
        finally:
            sender.cancel()
            await stream.aclose()

    async def _fail(self, message: DeliveredMessage, error: Exception) -> None:
        failure = Failure.of(error)
        if message.routing_key is not None and message.routing_key.endswith(".texts"):
            await self._reply(message, PIECES, encode(Pieces(0, [], done=True, failure=failure)))
        else:
            await self._reply(message, FAILED, encode(failure))

    async def _reply(self, message: DeliveredMessage, kind: str, body: bytes) -> None:
        """Answer the gateway that asked, if it is still there."""
        asked = message.header.properties
        properties = Basic.Properties(
            correlation_id=asked.correlation_id,
            message_type=kind,
            reply_to=self._names.worker(self.id),
            delivery_mode=TRANSIENT,
        )
        await self.link.wait_up(OPTIONS.publish_timeout_s)  # work arrives before the connection is proven
        await self.link.publish(body, properties, routing_key=asked.reply_to or "", confirm=False)


class PieceSender:
    """Sends pieces in order, those that came while the last message was on its way together."""

    def __init__(self, send: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        self._send = send
        self._sent, self._waiting = 0, list[bytes]()
        self._sending: asyncio.Task[None] | None = None

    def put(self, piece: bytes) -> None:
        """Take a piece.

        Raises: what sending the ones before it raised.
        """
        self._waiting.append(piece)
        if self._sending is not None and self._sending.done():
            self._sending.result()
            self._sending = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._flush())

    async def end(self, failure: Failure | None = None) -> None:
        """Send the rest, and that it was the last."""
        if self._sending is not None:
            await self._sending
        await self._send(encode(Pieces(self._sent, self._waiting, done=True, failure=failure)))

    def cancel(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _flush(self) -> None:
        while self._waiting:
            pieces, self._waiting = self._waiting, []
            await self._send(encode(Pieces(self._sent, pieces)))
            self._sent += len(pieces)
