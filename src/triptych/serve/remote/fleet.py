"""The workers of other machines: who is there, what they offer, and what was asked of them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from triptych.bundle import reader
from triptych.errors import BrokerUnavailable, DeadlineExceeded, Draining, Overloaded, TriptychError
from triptych.serve.brokers.amqp_connection import AmqpConnection, Consumption
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.brokers.chores import Chores
from triptych.serve.catalog import Catalog, Model
from triptych.serve.generation import Generation
from triptych.serve.remote.pool import RemotePool
from triptych.serve.remote.protocol import (
    CANCEL,
    GONE_S,
    OPTIONS,
    PERSISTENT,
    PIECES,
    TIMEOUT,
    TRANSIENT,
    Announcement,
    Names,
    Pieces,
    declare_work,
)
from triptych.serve.remote.request import Request
from triptych.serve.supervise.pool import WorkerInfo
from triptych.serve.supervise.spec import Exit, Shutdown

AHEAD = 2  # batches on their way for each process: one is computed, the next waits beside it
WAIT_S = 5.0  # a request waits this long for RabbitMQ before it is refused

log = logging.getLogger(__name__)


class Machine:
    """A worker machine as it last announced itself.

    Attributes:
        models: what it offers, by name.
        heard_at_s: when that was, on the monotonic clock.
    """

    def __init__(self, told: Announcement) -> None:
        self.told, self.heard_at_s = told, time.monotonic()
        where = Path(f"worker {told.id[:8]}")
        found = [
            Model(where, reader.parse(where, offer.manifest), offer.created_at_s) for offer in told.offers
        ]
        self.models = {model.name: model for model in found}

    def hear(self, told: Announcement) -> None:
        """It announced itself again."""
        self.told, self.heard_at_s = told, time.monotonic()


class RemoteFleet:
    """A `Child` that is the connection to RabbitMQ, and all that goes through it.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        on_generation: called when the models on offer are others.

    Attributes:
        generation: the models on offer now. Of a model that workers have in several versions, it is that of
            the worker started last.
    """

    def __init__(self, url: str, on_generation: Callable[[Generation], object]) -> None:
        self.id, self.names = uuid.uuid4().hex, Names(OPTIONS.prefix)
        self.generation = Generation(Catalog(), RemotePool(self, Catalog()))
        self._on_generation = on_generation
        self._consume: list[Consumption] = []
        self.link = AmqpLink(url, OPTIONS, self._on_declare, self._consume, on_up=self._on_up)
        self._queue = ""  # where answers come: a new one for each connection, a lost one may linger
        self._machines: dict[str, Machine] = {}
        self._requests: dict[str, Request] = {}
        self._ids, self._chores = count(1), Chores()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._stopped: asyncio.Future[Exit] | None = None
        self._refusal: Draining | None = None

    @property
    def pid(self) -> None:
        """None: it has no process."""
        return None

    async def start(self) -> None:
        """Begin to connect; does not wait for RabbitMQ, nor for workers."""
        self._stopped = asyncio.get_running_loop().create_future()
        await self.link.start()
        self._chores.start(self._look())

    async def wait(self) -> Exit:
        """Return once it was stopped."""
        assert self._stopped is not None
        return await asyncio.shield(self._stopped)

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Refuse new requests, let open ones end for `shutdown` seconds, let go of the connection."""
        self._refusal = Draining("the gateway is stopping", where="gateway")
        self._wake()
        if self._requests and shutdown != "brutal_kill":
            timeout_s = None if shutdown == "infinity" else float(shutdown)
            await asyncio.wait([request.ended for request in self._requests.values()], timeout=timeout_s)
        for request in list(self._requests.values()):
            request.fail(self._refusal)
        await self._chores.stop()
        await self.link.close()
        assert self._stopped is not None
        if not self._stopped.done():
            self._stopped.set_result(Exit(code=0))
        return await self.wait()

    def send(self, queue: str, body: bytes, deadline_s: float | None, request: Request) -> None:
        """Have a worker do `request`, again after each loss of the connection, until it has ended.

        Raises: Draining; Overloaded if no worker is known.
        """
        if self._refusal is not None:
            raise self._refusal
        if not self._machines:
            raise Overloaded("no worker is there", where="gateway", remedy="start `triptych worker`")
        request.id = f"{self.id[:8]}.{next(self._ids)}"
        request.queue, request.body, request.deadline_s = queue, body, deadline_s
        self._requests[request.id] = request
        request.ended.add_done_callback(lambda _: self._end(request))
        self._chores.start(self._publish(request))

    async def idle(self) -> None:
        """Return once workers have room for a batch, or none is there."""
        while not self._has_room():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def workers(self) -> list[WorkerInfo]:
        """The processes of all machines, numbered through."""
        found = [info for machine in self._machines.values() for info in machine.told.processes]
        return [msgspec.structs.replace(info, slot=slot) for slot, info in enumerate(found)]

    def _has_room(self) -> bool:
        if self._refusal is not None or not self._machines:
            return True
        ready = sum(info.state == "ready" for info in self.workers())
        return sum(request.is_batch for request in self._requests.values()) < AHEAD * max(1, ready)

    def _wake(self) -> None:
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                asyncio.get_running_loop().call_soon(self._wake)
                return

    async def _on_declare(self, connection: AmqpConnection) -> None:
        self._queue = self.names.gateway(uuid.uuid4().hex)
        self._consume[:] = [Consumption(self._queue, self._on_message, no_ack=True)]
        await connection.declare_exchange(self.names.workers, "fanout")
        await connection.declare_private_queue(self._queue)
        await connection.bind(self._queue, self.names.workers)
        versions = {model.name: model.version for model in self.generation.catalog.values()}
        await declare_work(connection, self.names, versions)

    def _on_up(self) -> None:
        for request in self._requests.values():
            self._chores.start(self._publish(request))

    async def _publish(self, request: Request) -> None:
        """Send a request. One that a connection was lost over is sent again when the next one is up."""
        try:
            await self.link.wait_up(WAIT_S)
            reconnects = self.link.reconnects
            left_ms = request.left_ms()
            if request.ended.done() or left_ms <= 0:
                return
            properties = Basic.Properties(
                correlation_id=request.id,
                reply_to=self._queue,
                expiration=str(left_ms),
                headers={TIMEOUT: left_ms},
                delivery_mode=PERSISTENT,
            )
            request.is_sent = True
            await self.link.publish(request.body, properties, routing_key=request.queue)
        except (BrokerUnavailable, Overloaded) as error:
            is_lost = request.is_sent and (not self.link.is_up or self.link.reconnects != reconnects)
            if not is_lost:
                request.fail(error)

    def _end(self, request: Request) -> None:
        self._requests.pop(request.id, None)
        if request.worker:
            self._chores.start(self._cancel(request.id, request.worker))
        self._wake()

    async def _cancel(self, id: str, worker: str) -> None:
        """Tell a worker that nobody reads a text any more; one that has finished it takes no notice."""
        properties = Basic.Properties(correlation_id=id, message_type=CANCEL, delivery_mode=TRANSIENT)
        try:
            await self.link.publish(b"", properties, routing_key=worker, confirm=False)
        except (BrokerUnavailable, Overloaded) as error:
            log.info("a text goes on that nobody reads: %s", error)

    def _on_message(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        if properties.correlation_id is None:
            self._on_announcement(message.body)
        elif request := self._requests.get(properties.correlation_id):
            request.answer(properties.message_type or "", message.body, properties.reply_to or "")
        elif properties.message_type == PIECES and not msgspec.msgpack.decode(message.body, type=Pieces).done:
            self._chores.start(self._cancel(properties.correlation_id, properties.reply_to or ""))

    def _on_announcement(self, body: bytes) -> None:
        told = msgspec.msgpack.decode(body, type=Announcement)
        if told.leaving:
            if self._machines.pop(told.id, None):
                log.info("worker %s leaves", told.id[:8])
                self._offer()
            return
        if machine := self._machines.get(told.id):
            machine.hear(told)
            self._wake()
            return
        try:
            self._machines[told.id] = Machine(told)
        except TriptychError as error:
            log.error("worker %s offers what cannot be read: %s", told.id[:8], error)
            return
        log.info("worker %s is there: %s", told.id[:8], ", ".join(self._machines[told.id].models))
        self._offer()

    async def _look(self) -> None:
        """Forget workers that have not been heard of for long; end requests whose deadline passed."""
        while True:
            await asyncio.sleep(0.25)
            now_s = time.monotonic()
            for id, machine in list(self._machines.items()):
                if self.link.is_up and now_s - machine.heard_at_s > GONE_S:
                    log.error("worker %s: not heard of for %g s", id[:8], GONE_S)
                    del self._machines[id]
                    self._offer()
            for request in list(self._requests.values()):
                if request.left_ms() <= 0:
                    request.fail(DeadlineExceeded("no worker answered in time", where="gateway"))

    def _offer(self) -> None:
        """Offer what the workers have. Models stay on offer while no worker is left: one may come back."""
        catalog = Catalog()
        for machine in sorted(self._machines.values(), key=lambda machine: machine.told.started_at_s):
            catalog.update(machine.models)
        self._wake()
        present = self.generation.catalog
        if not catalog or {m.name: m.version for m in catalog.values()} == {
            m.name: m.version for m in present.values()
        }:
            return
        self.generation = Generation(catalog, RemotePool(self, catalog))
        log.info("on offer: %s", ", ".join(f"{model.name} {model.version}" for model in catalog.values()))
        self._on_generation(self.generation)
