"""The workers of other machines: the connection that leads to them, and what was asked of them."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from triptych.errors import BrokerUnavailable, DeadlineExceeded, Draining, Overloaded
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_consumer import Consumption
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.brokers.chores import Chores
from triptych.serve.generation import Generation
from triptych.serve.remote.machines import Machines, RemoteCatalog
from triptych.serve.remote.pool import RemotePool
from triptych.serve.remote.protocol import (
    ANNOUNCE_S,
    CANCEL,
    OPTIONS,
    PERSISTENT,
    PIECES,
    TIMEOUT,
    TRANSIENT,
    Names,
    Pieces,
    declare_work,
)
from triptych.serve.remote.request import Request, unreadable
from triptych.serve.supervise.pool import WorkerInfo
from triptych.serve.supervise.spec import Exit, Shutdown

AHEAD = 2  # batches on their way for each process: one is computed, the next waits beside it
OTHERS_S = 0.1  # workers that are there announce themselves within it
PATIENCE_S = 5.0  # RabbitMQ may be away for so long before new requests are refused

START = "start `triptych worker`, or try again"

log = logging.getLogger(__name__)


class RemoteFleet:
    """A `Child` that is the connection to RabbitMQ, and all that goes through it.

    What it has taken it sends again after each loss of the connection, until it is answered or late.

    Args:
        url: `amqp://user:password@host:port/vhost`.
        on_generation: called when the models on offer are others.
        max_texts: texts that may be open; one more is `Overloaded`.
        listen_s: how long the start waits for a worker to be heard.

    Attributes:
        generation: the models on offer now, see `machines.choose`.
        machines: the workers it has heard of.
    """

    def __init__(
        self,
        url: str,
        on_generation: Callable[[Generation], object],
        *,
        max_texts: int = 1024,
        listen_s: float = 1.0,
    ) -> None:
        self.id, self.names = uuid.uuid4().hex, Names(OPTIONS.prefix)
        self.machines = Machines(self._offer, self._wake)
        self.generation = self._generation()
        self._on_generation, self._max_texts, self._listen_s = on_generation, max_texts, listen_s
        self._consume: list[Consumption] = []
        self.link = AmqpLink(
            url,
            OPTIONS,
            self._on_declare,
            self._consume,
            on_up=self._on_up,
            on_lost=self._on_lost,
            on_gone=self.machines.hold,
        )
        self._queue = ""  # where answers come: a new one for each connection, a lost one may linger
        self._requests: dict[str, Request] = {}
        self._batches = 0  # of those
        self._ids, self._chores = count(1), Chores()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._has_heard = asyncio.Event()
        self._stopped: asyncio.Future[Exit] | None = None
        self._refusal: Draining | None = None
        self._since_s = time.monotonic()  # it is up, or down, since

    @property
    def pid(self) -> None:
        """None: it has no process."""
        return None

    async def start(self) -> None:
        """Begin to connect, and listen for workers: requests taken before would be refused."""
        self._stopped = asyncio.get_running_loop().create_future()
        await self.link.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._listen_s):
                await self._has_heard.wait()
                await asyncio.sleep(OTHERS_S)

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
        self.machines.hold()
        await self._chores.stop()
        await self.link.close()
        assert self._stopped is not None
        if not self._stopped.done():
            self._stopped.set_result(Exit(code=0))
        return await self.wait()

    def check_there(self, model: str) -> None:
        """Whether a request for `model` may be accepted now.

        Raises: BrokerUnavailable while RabbitMQ is away for long; Overloaded while no worker has the model.
        """
        for_s = time.monotonic() - self._since_s
        if not self.link.is_up and for_s > PATIENCE_S:
            raise self.link.unavailable(f"for {for_s:.0f} s now")
        if not self.machines.have(model):
            raise Overloaded(
                f"no worker has `{model}` now", where="gateway", remedy="start `triptych worker`"
            )

    def check_all(self) -> None:
        """Whether every worker must have been heard of by now.

        Raises: Overloaded.
        """
        is_settled = self.link.is_up and time.monotonic() - self._since_s > 2 * ANNOUNCE_S
        if not (is_settled and self.machines):
            raise Overloaded("no worker is there yet", where="gateway", remedy=START)

    def send(self, request: Request) -> None:
        """Have a worker do `request`.

        Raises: Draining; Overloaded if too many texts are open.
        """
        if self._refusal is not None:
            raise self._refusal
        if not request.is_batch and len(self._requests) - self._batches >= self._max_texts:
            raise Overloaded(f"{self._max_texts} texts are open", where="gateway", remedy="try again later")
        request.id = f"{self.id[:8]}.{next(self._ids)}"
        request.again = lambda: self._chores.start(self._publish(request))
        self._requests[request.id] = request
        self._batches += request.is_batch
        late = DeadlineExceeded("no worker answered in time", where="gateway")
        timer = asyncio.get_running_loop().call_later(request.left_ms() / 1000, request.fail, late)
        request.ended.add_done_callback(lambda _: self._end(request, timer))
        if self.link.is_up:  # or else it is sent as soon as that is so
            request.again()

    async def idle(self) -> None:
        """Return once workers have room for a batch, or none is there."""
        while not self._has_room():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def workers(self) -> list[WorkerInfo]:
        """The processes of all machines, numbered through."""
        return self.machines.processes()

    def _has_room(self) -> bool:
        return self._refusal is not None or self._batches < AHEAD * max(1, self.machines.ready())

    def _wake(self) -> None:
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                asyncio.get_running_loop().call_soon(self._wake)
                return

    async def _on_declare(self, connection: AmqpConnection) -> None:
        self._queue = self.names.private("gateway", uuid.uuid4().hex)
        self._consume[:] = [Consumption(self._queue, self._on_message, no_ack=True)]
        await connection.declare_exchange(self.names.workers, "fanout")
        await connection.declare_private_queue(self._queue)
        await connection.bind(self._queue, self.names.workers)
        await declare_work(connection, {request.queue for request in self._requests.values()})

    def _on_up(self) -> None:
        self._since_s = time.monotonic()
        self.machines.resume()
        for request in self._requests.values():
            self._cancel_soon(request)  # its pieces would go where nobody reads them
            request.again()

    def _on_lost(self) -> None:
        self._since_s = time.monotonic()

    async def _publish(self, request: Request) -> None:
        """Send it. If the connection is lost over that, it is sent again when the next one is up."""
        left_ms, connection = request.left_ms(), self.link.reconnects
        if request.ended.done() or left_ms <= 0:
            return
        request.sendings += 1
        properties = Basic.Properties(
            correlation_id=request.correlation_id,
            reply_to=self._queue,
            expiration=str(left_ms),
            headers={TIMEOUT: left_ms},
            delivery_mode=PERSISTENT,
        )
        try:
            await self.link.publish(request.body, properties, routing_key=request.queue)
        except Overloaded as error:
            request.fail(error)
        except BrokerUnavailable as error:
            if self.link.is_up and self.link.reconnects == connection:  # it blocks publishers
                request.fail(error)

    def _end(self, request: Request, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        del self._requests[request.id]
        self._batches -= request.is_batch
        self._cancel_soon(request)
        self._wake()

    def _cancel_soon(self, request: Request) -> None:
        worker, request.worker = request.worker, ""
        if worker:
            self._chores.start(self._cancel(request.correlation_id, worker))

    async def _cancel(self, correlation_id: str, worker: str) -> None:
        """Tell a worker that nobody reads a text any more; one that has finished it takes no notice."""
        properties = Basic.Properties(
            correlation_id=correlation_id, message_type=CANCEL, delivery_mode=TRANSIENT
        )
        try:
            await self.link.publish(b"", properties, routing_key=worker, confirm=False)
        except (BrokerUnavailable, Overloaded) as error:
            log.info("a text goes on that nobody reads: %s", error)

    def _on_message(self, message: DeliveredMessage) -> None:
        properties = message.header.properties
        if properties.correlation_id is None:
            self.machines.hear(message.body)
            self._has_heard.set()
            return
        request = self._requests.get(properties.correlation_id.partition("/")[0])
        try:
            if request is not None:
                request.answer(message)
            elif properties.message_type == PIECES and not is_last(message.body):
                self._chores.start(self._cancel(properties.correlation_id, properties.reply_to or ""))
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            log.error("a worker's answer cannot be read: %s", error)
            if request is not None:
                request.fail(unreadable(error))

    def _generation(self) -> Generation:
        offered = self.machines.offered
        models = [offer.model for offer in offered.values()]
        catalog = RemoteCatalog(models, self.check_there, self.check_all)
        return Generation(catalog, RemotePool(self, {name: offer.key for name, offer in offered.items()}))

    def _offer(self) -> None:
        """A worker came or went: the models on offer may be others."""
        self._wake()
        pool = self.generation.pool
        assert isinstance(pool, RemotePool)
        if pool.keys != {name: offer.key for name, offer in self.machines.offered.items()}:
            self.generation = self._generation()
            models = [f"{offer.model.name} {offer.model.version}" for offer in self.machines.offered.values()]
            log.info("on offer: %s", ", ".join(models))
            self._on_generation(self.generation)


def is_last(body: bytes) -> bool:
    """Whether these are the last pieces of a text."""
    return msgspec.msgpack.decode(body, type=Pieces).done
