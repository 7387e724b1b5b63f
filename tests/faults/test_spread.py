"""The direct lane over RabbitMQ when connections, workers and brokers are lost, and when workers differ."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec
import pytest

from triptych.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    InputError,
    NotFoundError,
    Overloaded,
    Poison,
)
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.catalog import Catalog
from triptych.serve.gateway import Gateway
from triptych.serve.metrics import Metrics
from triptych.serve.remote import fleet as fleet_module
from triptych.serve.remote import protocol, service
from triptych.serve.remote.fleet import RemoteFleet
from triptych.serve.remote.service import WorkerService
from triptych.serve.settings import Settings
from triptych.serve.supervise.pool import WorkerInfo
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.work import Continuation, RunWork, TextWork

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
MODEL = "by-hand"


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def own_queues(monkeypatch):
    """Each test has names of its own, and workers announce themselves often."""
    options = msgspec.structs.replace(protocol.OPTIONS, prefix=f"t{secrets.token_hex(4)}", backoff_s=0.1)
    for module in (fleet_module, service):
        monkeypatch.setattr(module, "OPTIONS", options)
        monkeypatch.setattr(module, "ANNOUNCE_S", 0.1)


class Echo:
    """A pool that answers a batch with its bodies upside down, and continues a text by counting."""

    def __init__(self):
        self.seen, self.streams = [], []
        self.go = asyncio.Event()
        self.go.set()
        self.piece_s, self.deaths = 0.0, 0

    async def run(self, payloads, *, deadline_s=None):
        bodies = [msgspec.msgpack.decode(payload, type=RunWork).body for payload in payloads]
        self.seen += bodies
        await self.go.wait()
        if b"refuse" in bodies:
            raise InputError("asked to", where="body")
        return [body[::-1] for body in bodies]

    def stream(self, payload, *, deadline_s=None):
        made = PieceStream(len(self.streams), payload, buffer=10_000, on_end=lambda _: writing.cancel())
        self.streams.append(made)
        writing = asyncio.create_task(self._write(made, msgspec.msgpack.decode(payload, type=TextWork)))
        return made

    async def _write(self, made, work):
        for number in range(work.request.max_tokens):
            await self.go.wait()
            await asyncio.sleep(self.piece_s)
            made.put(b"%d" % number)
        made.end()

    def workers(self):
        return [WorkerInfo(0, os.getpid(), "ready", 0, len(self.seen), 0)]


class Away(Echo):
    """A pool whose machine is lost over poison and over texts: its connection breaks, nothing is answered."""

    async def run(self, payloads, *, deadline_s=None):
        if not any(b"poison" in payload for payload in payloads):
            return await super().run(payloads)
        self.deaths += 1
        self.line.cut()
        await asyncio.Event().wait()

    def stream(self, payload, *, deadline_s=None):
        self.deaths += 1
        made = PieceStream(0, payload, buffer=10, on_end=lambda _: None)
        self.line.cut()
        return made


class Line:
    """A TCP connection's way to RabbitMQ, that can be cut."""

    def __init__(self, port):
        self._port, self._ends, self._pumps = port, [], []

    async def lay(self):
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def _connect(self, reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return writer.close()
        self._ends += [writer, there[1]]
        self._pumps += [
            asyncio.create_task(self._pump(reader, there[1])),
            asyncio.create_task(self._pump(there[0], writer)),
        ]

    async def _pump(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    def cut(self):
        """Lose all connections without a word."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def close(self):
        self.cut()
        self._server.close()
        await asyncio.wait(self._pumps)


class Spread:
    """A gateway's end, and workers."""

    def __init__(self, port, make_model, stack, line):
        self._port, self._make_model, self._stack, self.line = port, make_model, stack, line
        self.fleet = RemoteFleet(line.url, lambda _: None, max_texts=3, listen_s=0.0)

    async def work(self, pool=None, *, way="way", name=MODEL, batches=4, texts=4):
        """A worker more; returned with its pool once the gateway has heard of it."""
        pool, model = pool or Echo(), self._make_model(name)
        model.is_text = True
        catalog = Catalog({name: model})
        line = pool.line = await lay(self._port, self._stack)
        worker = WorkerService(line.url, catalog, {name: way}, pool, batches=batches, texts=texts)
        await worker.start()
        self._stack.push_async_callback(worker.close, 0.0)
        await until(lambda: worker.id in self.fleet.machines._machines)
        return worker, pool

    async def ask(self, body, timeout_s=60.0):
        """What a batch of one is answered."""
        payload = msgspec.msgpack.encode(RunWork(MODEL, "decode", "", body, "", 1))
        (answer,) = await self.fleet.generation.pool.run([payload], deadline_s=time.monotonic() + timeout_s)
        return answer

    async def open(self):
        """Have requests go through the gateway's pipeline, as HTTP's do."""
        self.gateway = Gateway(self.fleet.generation, Settings(), Metrics(), workers=8)
        await self.gateway.pipeline.start()
        self._stack.push_async_callback(self.gateway.pipeline.stop, "brutal_kill")

    async def submit(self, body, timeout_s=60.0):
        """What a request that the pipeline batches is answered."""
        answer = asyncio.get_running_loop().create_future()
        work, deadline_s = RunWork(MODEL, "decode", "", body, "", 1), time.monotonic() + timeout_s
        self.gateway.submit(work, rows=1, key=(), deadline_s=deadline_s, done=answer.set_result)
        outcome = await answer
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def text(self, tokens, timeout_s=60.0):
        """The stream of a text."""
        payload = msgspec.msgpack.encode(TextWork(MODEL, Continuation(prompt="", seed=0, max_tokens=tokens)))
        return self.fleet.generation.pool.stream(payload, deadline_s=time.monotonic() + timeout_s)


async def lay(port, stack):
    """A line that is taken up after the test."""
    line = await Line(port).lay()
    stack.push_async_callback(line.close)
    return line


@pytest.fixture
async def spread(rabbitmq, make_model):
    async with AsyncExitStack() as stack:
        found = Spread(rabbitmq.port, make_model, stack, await lay(rabbitmq.port, stack))
        await found.fleet.start()
        stack.push_async_callback(found.fleet.stop, "brutal_kill")
        await found.fleet.link.wait_up(20)
        yield found


async def until(is_so, timeout_s=30.0):
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load(spread, clients=6):
    """Clients that ask on and on meanwhile; every request must be answered, and rightly. Gives a counter."""
    answered, is_over = [0], False

    async def ask(client):
        while not is_over:
            body = b"%d.%d" % (client, answered[0])
            assert await spread.submit(body) == body[::-1]
            answered[0] += 1

    await spread.open()
    asking = asyncio.gather(*(ask(client) for client in range(clients)))
    try:
        await until(lambda: answered[0] > 20 or asking.done())
        yield answered
    finally:
        is_over = True
        await asking


async def test_a_gateway_that_lost_its_connection_sends_again_what_was_open(spread):
    _, pool = await spread.work()
    pool.go.clear()
    asking = asyncio.create_task(spread.ask(b"abc"))
    text = spread.text(5)
    await until(lambda: pool.seen and pool.streams)
    spread.line.cut()
    await until(lambda: not spread.fleet.link.is_up)
    between = asyncio.create_task(spread.ask(b"def"))  # accepted while RabbitMQ is away
    await until(lambda: len(pool.seen) == 3 and len(pool.streams) == 2)
    pool.go.set()
    assert await asking == b"cba"
    assert await between == b"fed"
    assert [piece async for piece in text] == [b"0", b"1", b"2", b"3", b"4"]
    assert sorted(pool.seen) == [b"abc", b"abc", b"def"]


async def test_a_text_whose_gateway_reconnects_goes_on_and_its_first_copy_is_stopped(spread):
    worker, pool = await spread.work()
    pool.piece_s = 0.01
    text = spread.text(150)
    first = [await anext(text) for _ in range(5)]
    spread.line.cut()
    rest = [piece async for piece in text]
    assert first + rest == [b"%d" % number for number in range(150)]
    assert len(pool.streams) == 2
    await until(lambda: not worker._tasks)
    assert all(stream.ended for stream in pool.streams)


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_rabbitmq_goes_away_under_load_and_every_accepted_request_is_answered(spread, rabbitmq, fault):
    await spread.work()
    await spread.work()
    await asyncio.sleep(1.0)  # RabbitMQ 3.10 forgets whose queue it is when killed 0.5 s after making it
    async with load(spread) as answered:
        if fault == "killed":
            await asyncio.to_thread(rabbitmq.kill)
            await asyncio.to_thread(rabbitmq.start)
        else:
            rabbitmq.send(signal.SIGSTOP)
            await until(lambda: not spread.fleet.link.is_up)
            rabbitmq.send(signal.SIGCONT)
        before = answered[0]
        await until(lambda: answered[0] > before + 50)
        assert spread.fleet.link.reconnects >= 1


async def test_a_gateway_that_starts_has_heard_of_the_workers_that_are_there(spread):
    worker, _ = await spread.work()
    fleet = RemoteFleet(spread.line.url, lambda _: None, listen_s=20.0)
    await fleet.start()
    assert list(fleet.machines._machines) == [worker.id]
    await fleet.stop("brutal_kill")


async def test_new_requests_are_refused_once_rabbitmq_has_been_away_for_long(spread, monkeypatch):
    await spread.work()
    catalog = spread.fleet.generation.catalog
    assert catalog.find(MODEL).name == MODEL
    await spread.fleet.link.close()
    spread.fleet.link._up.clear()
    monkeypatch.setattr(fleet_module, "PATIENCE_S", 0.0)
    with pytest.raises(BrokerUnavailable, match="Try again later"):
        catalog.find(MODEL)


async def test_what_nobody_has_is_told_apart_from_what_nobody_has_yet(spread, monkeypatch):
    with pytest.raises(Overloaded, match="no worker is there yet"):
        spread.fleet.generation.catalog.find(MODEL)
    worker, _ = await spread.work()
    monkeypatch.setattr(fleet_module, "ANNOUNCE_S", 0.0)
    with pytest.raises(NotFoundError, match="other"):
        spread.fleet.generation.catalog.find("other")
    await worker.close(0.0)
    await until(lambda: not spread.fleet.machines)
    with pytest.raises(Overloaded, match="no worker has `by-hand` now"):
        spread.fleet.generation.catalog.find(MODEL)
    assert spread.fleet.generation.catalog.known(MODEL).name == MODEL  # jobs may wait for one


async def test_blocked_publishers_are_refused_in_time_and_answers_wait(spread, rabbitmq, monkeypatch):
    monkeypatch.setattr(
        spread.fleet.link,
        "options",
        msgspec.structs.replace(spread.fleet.link.options, publish_timeout_s=0.5),
    )
    _, pool = await spread.work()
    pool.go.clear()
    asking = asyncio.create_task(spread.ask(b"before"))
    await until(lambda: pool.seen)
    await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.000001")
    try:
        with pytest.raises(BrokerUnavailable, match=r"connection\.blocked|confirmed within"):
            await asyncio.gather(*(spread.ask(b"during") for _ in range(3)))
        pool.go.set()
        await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.6")
    assert await asking == b"erofeb"
    assert pool.seen.count(b"before") == 1


async def test_a_worker_leaves_in_time_while_rabbitmq_blocks_publishers(spread, rabbitmq):
    worker, _ = await spread.work()
    worker.link.options = msgspec.structs.replace(worker.link.options, publish_timeout_s=0.5)
    worker.link._connection.options = worker.link.options
    await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.000001")
    try:
        while not await worker.link._connection.is_blocked():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            await worker.close(0.0)
        assert worker.link._connection is None
        assert not worker._tasks
    finally:
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.6")


async def test_a_client_that_goes_away_stops_its_text_and_frees_its_place(spread):
    worker, pool = await spread.work()
    pool.piece_s = 0.01
    texts = [spread.text(100_000) for _ in range(3)]
    for text in texts:
        await anext(text)
    with pytest.raises(Overloaded, match="3 texts are open"):
        spread.text(1)
    await texts[0].aclose()
    await until(lambda: len(worker._tasks) == 2)
    assert sum(stream.ended for stream in pool.streams) == 1
    assert [piece async for piece in spread.text(2)] == [b"0", b"1"]


async def test_a_text_whose_client_left_before_it_began_is_stopped_at_its_first_piece(spread):
    worker, pool = await spread.work(texts=1)
    pool.piece_s = 0.005
    first, queued = spread.text(40), spread.text(100_000)
    await anext(first)
    await queued.aclose()
    assert len([piece async for piece in first]) == 39
    await until(lambda: len(pool.streams) == 2 and pool.streams[1].ended)
    await until(lambda: not worker._tasks)


async def test_the_texts_of_a_gateway_that_is_gone_are_stopped(spread):
    worker, pool = await spread.work()
    pool.piece_s = 0.01
    text = spread.text(100_000)
    await anext(text)
    spread.fleet.link._keeper.cancel()  # it does not come back
    spread.line.cut()
    await until(lambda: pool.streams[0].ended)
    await until(lambda: not worker._tasks)
    assert [stream.ended for stream in pool.streams] == [True]


async def test_what_expired_in_the_queue_is_not_computed(spread):
    _, pool = await spread.work(batches=1)
    pool.go.clear()
    held = asyncio.create_task(spread.ask(b"held"))
    await until(lambda: pool.seen)
    asked_at_s = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await spread.ask(b"late", timeout_s=0.2)
    assert time.monotonic() - asked_at_s < 1.0
    pool.go.set()
    assert await held == b"dleh"
    assert await spread.ask(b"next") == b"txen"
    assert pool.seen == [b"held", b"next"]


async def test_a_worker_that_computes_otherwise_than_its_fellows_gets_nothing_until_they_are_gone(
    spread, caplog
):
    fellows = [await spread.work(way="f32") for _ in range(2)]
    _, misfit = await spread.work(way="bf16")
    assert [await spread.ask(b"%d" % n) for n in range(10)] == [b"%d" % n for n in range(10)]
    assert not misfit.seen
    assert "gets no work on `by-hand`" in caplog.text
    for worker, _ in fellows:
        await worker.close(1.0)
    await until(lambda: spread.fleet.machines.offered[MODEL].way == "bf16")
    assert await spread.ask(b"ab") == b"ba"
    assert misfit.seen == [b"ab"]


async def test_poison_that_takes_workers_along_is_found_by_halves_and_its_company_is_answered(spread):
    pools = [(await spread.work(Away(), batches=1))[1] for _ in range(2)]
    await spread.open()
    bodies = [b"%d" % n for n in range(7)] + [b"poison"]
    answers = await asyncio.gather(*map(spread.submit, bodies), return_exceptions=True)
    assert answers[:7] == [body[::-1] for body in bodies[:7]]
    assert isinstance(answers[7], Poison)
    assert sum(pool.deaths for pool in pools) <= 8  # two for each size, as a batch or alone


async def test_a_text_that_takes_workers_along_is_poison(spread):
    pools = [(await spread.work(Away(), texts=1))[1] for _ in range(2)]
    with pytest.raises(Poison, match="got no further"):
        await anext(spread.text(5))
    assert sum(pool.deaths for pool in pools) == 6


async def test_what_a_worker_held_when_its_connection_broke_is_done_by_another(spread):
    (_, slow), (_, other) = await spread.work(), await spread.work()
    slow.go.clear()
    asking = [asyncio.create_task(spread.ask(b"%d" % n)) for n in range(4)]
    await until(lambda: slow.seen)
    held = len(slow.seen)
    slow.line.cut()
    slow.go.set()
    assert [await answer for answer in asking] == [b"%d" % n for n in range(4)]
    assert len(slow.seen) + len(other.seen) == 4 + held


def fail_once_consuming(monkeypatch, link, queue, is_so):
    """Have the next try of `link` to connect fail once `is_so`, with messages delivered from `queue`."""
    begin, failed = AmqpConnection.consume, asyncio.Event()

    async def begin_and_fail(connection, consumption):
        await begin(connection, consumption)
        if connection is link()._connection and consumption.queue.endswith(queue()) and not failed.is_set():
            await until(is_so)
            failed.set()
            raise TimeoutError

    monkeypatch.setattr(AmqpConnection, "consume", begin_and_fail)
    return failed


async def test_work_that_a_failed_try_to_connect_delivered_is_dropped_with_it(spread, monkeypatch):
    first, _ = await spread.work()
    await first.close(0.0)
    asking = asyncio.create_task(spread.ask(b"abc"))
    pool, worker = Echo(), []
    pool.go.clear()
    failed = fail_once_consuming(monkeypatch, lambda: worker[0].link, lambda: ".batches", lambda: pool.seen)
    start = WorkerService.start

    async def noting(service):
        worker.append(service)
        await start(service)

    monkeypatch.setattr(WorkerService, "start", noting)
    await spread.work(pool)
    assert failed.is_set()
    await until(lambda: len(pool.seen) == 2)
    assert len(worker[0]._tasks) == 1
    pool.go.set()
    assert await asking == b"cba"
    assert await spread.ask(b"def") == b"fed"
    assert worker[0].link.reconnects == 0


async def test_a_worker_heard_of_over_a_failed_try_to_connect_is_not_given_up_for_that(spread, monkeypatch):
    worker, _ = await spread.work()
    machine = spread.fleet.machines._machines[worker.id]
    failed = fail_once_consuming(
        monkeypatch,
        lambda: spread.fleet.link,
        lambda: spread.fleet._queue,
        lambda: not machine.timer.cancelled(),
    )
    again = asyncio.Event()

    async def connect():
        if failed.is_set():
            await again.wait()  # RabbitMQ stays away
        return await AmqpLink._connect(spread.fleet.link)

    monkeypatch.setattr(spread.fleet.link, "_connect", connect)
    spread.line.cut()
    await failed.wait()
    await until(lambda: spread.fleet.link._connection is None and machine.timer.cancelled())
    again.set()
    await until(lambda: spread.fleet.link.is_up)
    assert not machine.timer.cancelled()
    assert list(spread.fleet.machines._machines) == [worker.id]


async def test_answers_of_any_size_come_through_in_parts(spread, monkeypatch):
    monkeypatch.setattr("triptych.serve.remote.task.MESSAGE_BYTES", 1000)
    await spread.work()
    body = os.urandom(100_123)
    assert await spread.ask(body) == body[::-1]


async def test_an_error_comes_back_as_what_it_was(spread):
    await spread.work()
    with pytest.raises(InputError, match="asked to"):
        await spread.ask(b"refuse")


async def test_a_worker_that_leaves_finishes_what_it_took(spread):
    worker, pool = await spread.work()
    pool.go.clear()
    asking = asyncio.create_task(spread.ask(b"taken"))
    await until(lambda: pool.seen)
    closing = asyncio.create_task(worker.close(20.0))
    await until(lambda: not spread.fleet.machines)
    pool.go.set()
    assert await asking == b"nekat"
    await closing


async def test_a_deleted_queue_is_made_again_and_what_was_in_it_is_sent_again(spread):
    worker, pool = await spread.work(batches=1)
    pool.go.clear()
    held = asyncio.create_task(spread.ask(b"held"))
    await until(lambda: pool.seen)
    waiting = asyncio.create_task(spread.ask(b"waiting"))
    key = spread.fleet.machines.offered[MODEL].key
    channel = await spread.fleet.link._connection._open_channel()
    await until(lambda: len(spread.fleet._requests) == 2)
    await channel.queue_delete(spread.fleet.names.batches(*key))
    await until(lambda: worker.link.reconnects == 1)
    pool.go.set()
    spread.line.cut()  # what its queue lost a gateway sees by its next connection at the latest
    assert await held == b"dleh"
    assert await waiting == b"gnitiaw"
