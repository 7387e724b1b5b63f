"""Laws of a server that is asked for more than it can do: over real sockets, its workers led by the test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from triptych.serve.catalog import Catalog
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.app import App
from triptych.serve.http.connection import Connection
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Settings, read_settings
from triptych.serve.ticket import Outcome
from triptych.serve.work import JSON, SampleWork

PATH = "/v1/models/vae/sample"
HELD = 16  # more than the pipeline takes in with batches of one


class Stepped:
    """Workers that do one batch each time the test says so."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)

    async def idle(self) -> None:
        """There is always room."""

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes]:
        await self.steps.acquire()
        return [b"{}"] * len(payloads)


class Crowd:
    """A gateway behind one worker, and the requests that wait for it."""

    def __init__(self, settings: Settings) -> None:
        self.pool = Stepped()
        self.gateway = Gateway(Generation(Catalog(), self.pool), settings, Metrics())  # type: ignore[arg-type]
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

    async def step(self) -> None:
        """Have one request answered."""
        self.pool.steps.release()
        await self.outcomes.get()

    def ask(self, deadline_s: float = 3600.0) -> None:
        work = SampleWork("vae", 1, 0, JSON)
        until_s = time.monotonic() + deadline_s
        self.gateway.submit(work, rows=1, key="vae", deadline_s=until_s, done=self.outcomes.put_nowait)

    def is_refused(self, within_s: float) -> bool:
        return self.gateway.overload(time.monotonic() + within_s) is not None


@asynccontextmanager
async def crowd(*overrides: str, measured: bool = True) -> AsyncIterator[Crowd]:
    """With so many requests that some wait; their pace is known unless not `measured`."""
    made = Crowd(read_settings(overrides=["queue.batch_size=1", *overrides]))
    await made.gateway.pipeline.start()
    try:
        async with asyncio.timeout(20):
            for _ in range(HELD):
                if not made.is_refused(3600.0):
                    made.ask()
                await asyncio.sleep(0)
            for _ in range(3 * measured):
                await made.step()
            yield made
    finally:
        await made.gateway.pipeline.stop("brutal_kill")


@asynccontextmanager
async def client(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the whole of the HTTP side."""
    app, connections = App(gateway), set[Connection]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(app, gateway.settings.http, connections), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        for connection in list(connections):
            connection.abort()


def post(*fields: str, length: int, path: str = PATH) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {length}", *fields, "", ""]
    return "\r\n".join(lines).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


@pytest.mark.anyio
async def test_an_answer_that_would_come_after_its_deadline_is_refused_and_others_are_not() -> None:
    async with crowd() as made:
        assert made.is_refused(0.0)
        assert made.gateway.wait_s > 0
        assert not made.is_refused(3600.0)


@pytest.mark.anyio
async def test_a_queue_that_takes_longer_than_max_wait_s_takes_no_more() -> None:
    async with crowd("queue.max_wait_s=1e-9") as made:
        assert made.is_refused(3600.0)


@pytest.mark.anyio
async def test_nobody_is_refused_for_a_pace_that_was_never_measured_but_by_count() -> None:
    async with crowd("queue.max_wait_s=1e-9", measured=False) as made:
        assert not made.is_refused(1.0)
    async with crowd("queue.capacity=8", measured=False) as made:
        assert made.is_refused(3600.0)


@pytest.mark.anyio
async def test_nobody_is_refused_while_the_pipeline_has_room_however_slow_it_was() -> None:
    async with crowd("queue.max_wait_s=1e-9") as made:
        while made.gateway.queue_depth:
            await made.step()
        assert not made.is_refused(1e-3)


@pytest.mark.anyio
async def test_a_refusal_needs_no_body_says_when_to_come_back_and_keeps_the_connection() -> None:
    async with crowd("queue.max_wait_s=1e-9") as made, client(made.gateway) as (reader, writer):
        for _ in range(2):
            writer.write(post(length=8))
            status, headers, body = await answer(reader)
            assert (status, headers["retry-after"]) == (503, "1")
            assert json.loads(body)["error"]["type"] == "unavailable"
            writer.write(b'{"n": 1}')
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200


@pytest.mark.anyio
async def test_each_protocol_is_refused_in_its_own_shape() -> None:
    async with crowd("queue.max_wait_s=1e-9") as made, client(made.gateway) as (reader, writer):
        writer.write(post(length=0, path="/v2/models/vae/infer"))
        status, _, body = await answer(reader)
        assert (status, type(json.loads(body)["error"])) == (503, str)
        writer.write(post(length=0, path="/v1/images/generations"))
        status, _, body = await answer(reader)
        assert (status, json.loads(body)["error"]["type"]) == (503, "server_error")


@pytest.mark.anyio
async def test_a_body_that_was_only_offered_is_declined_with_the_connection() -> None:
    async with crowd("queue.max_wait_s=1e-9") as made, client(made.gateway) as (reader, writer):
        writer.write(post("Expect: 100-continue", length=8))
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (503, "close")
        assert await reader.read() == b""


@pytest.mark.anyio
async def test_retry_after_is_how_long_the_queue_takes() -> None:
    async with crowd() as made:
        made.gateway._pace._left, made.gateway._pace._elapsed_s = 10.0, 2.0
        error = made.gateway.overload(time.monotonic() + 0.1)
        assert error is not None
        assert error.retry_after_s == -(-(made.gateway.generation.open + 1) * 2 // 10)
