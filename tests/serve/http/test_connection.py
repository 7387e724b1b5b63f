"""Laws of a connection: HTTP/1.1 over a real socket, whatever the application behind it does."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager

import pytest

from triptych.errors import InputError, Overloaded, Poison
from triptych.serve.catalog import Catalog
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.connection import Connection
from triptych.serve.http.exchange import Exchange
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Http, Limits, Settings

TEXT = "text/plain"


class Idle:
    """A pool nobody asks."""


class Held:
    """Holds every exchange until the test answers it."""

    def __init__(self, limits: Limits) -> None:
        settings = Settings(limits=limits)
        self.gateway = Gateway(Generation(Catalog(), Idle()), settings, Metrics())  # type: ignore[arg-type]
        self.exchanges: asyncio.Queue[Exchange] = asyncio.Queue()
        self.connections: set[Connection] = set()

    def respond(self, exchange: Exchange) -> None:
        self.exchanges.put_nowait(exchange)


@asynccontextmanager
async def served(*, limits: Limits | None = None, **settings: float):
    held = Held(limits or Limits())
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(held, Http(**settings), held.connections), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(20):
            yield held, reader, writer
    finally:
        writer.close()
        server.close()
        for connection in list(held.connections):
            connection.abort()


def get(path: str, *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *fields, "", ""]).encode()


async def head(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


@pytest.mark.anyio
async def test_pipelined_requests_have_their_turns_in_order():
    async with served() as (held, reader, writer):
        writer.write(get("/1") + get("/2") + get("/3"))
        for number in "123":
            exchange = await held.exchanges.get()
            assert exchange.path == f"/{number}"
            assert held.exchanges.empty()
            exchange.reply(200, number.encode(), TEXT, [])
            assert "HTTP/1.1 200 OK" in await head(reader)
            assert await reader.readexactly(1) == number.encode()


@pytest.mark.anyio
async def test_a_header_has_no_clock_while_the_server_reads_nothing_and_a_new_one_afterwards():
    async with served() as (held, _, writer):
        third = get("/3")
        writer.write(get("/1") + get("/2") + third[:9])
        first = await held.exchanges.get()
        (connection,) = held.connections
        while not (connection._is_paused and connection._reader.begun):
            await asyncio.sleep(0)
        assert connection._header_timer is None
        first.reply(200, b"", TEXT, [])
        second = await held.exchanges.get()
        assert not connection._is_paused
        assert connection._header_timer is not None
        writer.write(third[9:])
        second.reply(200, b"", TEXT, [])
        assert (await held.exchanges.get()).path == "/3"
        assert connection._header_timer is None


@pytest.mark.anyio
async def test_a_head_request_gets_the_length_and_no_body():
    async with served() as (held, reader, writer):
        writer.write(get("/a", method="HEAD") + get("/b"))
        for body in (b"four", b"next"):
            (await held.exchanges.get()).reply(200, body, TEXT, [])
        assert "content-length: 4" in await head(reader)
        assert "content-length: 4" in await head(reader)
        assert await reader.readexactly(4) == b"next"


@pytest.mark.anyio
async def test_an_old_client_gets_its_pieces_unchunked_and_then_the_end():
    async with served() as (held, reader, writer):
        writer.write(get("/", version="1.0"))
        exchange = await held.exchanges.get()
        await exchange.begin(200, TEXT, [])
        await exchange.piece(b"one ")
        await exchange.piece(b"two", more=False)
        said = (await reader.read()).decode()
        assert "connection: close" in said
        assert "chunked" not in said
        assert said.endswith("\r\n\r\none two")


@pytest.mark.anyio
async def test_pieces_are_chunks_and_the_connection_lives_on():
    async with served() as (held, reader, writer):
        writer.write(get("/"))
        exchange = await held.exchanges.get()
        await exchange.begin(200, TEXT, [(b"a", b"b")])
        await exchange.piece(b"hello")
        await exchange.piece(b"", more=False)
        assert "transfer-encoding: chunked\r\na: b" in await head(reader)
        assert await reader.readexactly(15) == b"5\r\nhello\r\n0\r\n\r\n"
        writer.write(get("/more"))
        assert (await held.exchanges.get()).path == "/more"


@pytest.mark.anyio
async def test_whoever_expects_a_go_ahead_gets_it_once_the_body_is_wanted():
    async with served() as (held, reader, writer):
        writer.write(get("/", "Content-Length: 4", "Expect: 100-continue", method="POST"))
        exchange = await held.exchanges.get()
        body = asyncio.create_task(exchange.body())
        assert await head(reader) == "HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert await body == b"body"


@pytest.mark.anyio
async def test_what_is_no_http_behind_a_request_harms_that_request_not():
    async with served() as (held, reader, writer):
        writer.write(get("/good") + b"\x00\x01 nonsense\r\n\r\n")
        (await held.exchanges.get()).reply(200, b"good", TEXT, [])
        said = await reader.read()
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"good")


@pytest.mark.anyio
async def test_nothing_is_offered_to_upgrade_to_and_the_request_is_answered():
    async with served() as (held, reader, writer):
        offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM")
        post = get("/b", *offer, "Content-Length: 4", method="POST")
        writer.write(get("/a", *offer) + post + b"bo")
        (await held.exchanges.get()).reply(200, b"", TEXT, [])
        exchange = await held.exchanges.get()
        body = asyncio.create_task(exchange.body())
        writer.write(b"dy" + get("/c"))
        assert await body == b"body"
        exchange.reply(200, b"", TEXT, [])
        assert (await held.exchanges.get()).path == "/c"
        assert "HTTP/1.1 200" in await head(reader)
        assert "HTTP/1.1 200" in await head(reader)


CHUNKED, CLOSE = "Transfer-Encoding: chunked", "Connection: close"


@pytest.mark.anyio
async def test_a_header_may_end_between_two_reads_and_a_long_body_follow():
    async with served() as (held, _, writer):
        whole = get("/", "Content-Length: 200000", method="POST")
        writer.write(whole[:-1])
        await writer.drain()
        while not any(connection._reader.begun for connection in held.connections):
            await asyncio.sleep(0)
        writer.write(whole[-1:] + b"x" * 200_000)
        assert len(await (await held.exchanges.get()).body()) == 200_000


@pytest.mark.anyio
@pytest.mark.parametrize("part", [b"X: " + b"y" * 2**16, b"x: y\r\n" * 2**13])
async def test_what_is_neither_header_nor_body_has_its_limit(part: bytes):
    async with served() as (held, _, writer):
        writer.write(get("/", CHUNKED, method="POST") + b"2\r\n{}\r\n0\r\n")
        body = asyncio.create_task((await held.exchanges.get()).body())
        for _ in range(8):  # no line of them ends the trailers
            writer.write(part)
        with pytest.raises(Exception, match="65536"):
            await body


@pytest.mark.anyio
async def test_a_request_whose_body_breaks_off_has_one_answer():
    async with served() as (held, reader, writer):
        writer.write(get("/", CHUNKED, method="POST") + b"no length\r\n")
        exchange = await held.exchanges.get()
        with pytest.raises(Exception, match="not HTTP") as caught:
            await exchange.body()
        exchange.refuse(caught.value)
        said = await reader.read()
        assert (said.count(b"HTTP/1.1 "), said.count(b"HTTP/1.1 400")) == (1, 1)


@pytest.mark.anyio
async def test_a_request_that_was_answered_before_its_body_broke_off_is_not_answered_twice():
    async with served() as (held, reader, writer):
        writer.write(get("/", CHUNKED, method="POST"))
        (await held.exchanges.get()).reply(404, b"", TEXT, [])
        assert "404" in await head(reader)
        writer.write(b"no length\r\n")
        assert await reader.read() == b""


@pytest.mark.anyio
@pytest.mark.parametrize("behind", [b"GET /slow", b"GET / HTTP/1.1\r\nX: " + b"y" * 2**17, b"\0\r\n\r\n"])
async def test_no_answer_is_torn_by_what_comes_behind_its_request(behind: bytes):
    async with served(header_timeout_s=0.05) as (held, reader, writer):
        writer.write(get("/"))
        exchange = await held.exchanges.get()
        await exchange.begin(200, TEXT, [])
        writer.write(behind)
        (connection,) = held.connections
        while not connection._is_broken:
            await asyncio.sleep(0)
        await exchange.piece(b"whole", more=False)
        said = await reader.read()
        assert said.count(b"HTTP/1.1 ") == 1
        assert said.endswith(b"5\r\nwhole\r\n0\r\n\r\n")


@pytest.mark.anyio
async def test_who_sends_on_after_a_refusal_can_still_read_it():
    async with served() as (held, reader, writer):
        writer.write(get("/", "Content-Length: 100000000", method="POST"))
        exchange = await held.exchanges.get()
        with pytest.raises(Exception, match="at most") as caught:
            await exchange.body()
        exchange.refuse(caught.value)
        for _ in range(40):
            writer.write(b"x" * 2**20)
            await writer.drain()
        assert b"at most" in await reader.read()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_bytes", "flaw"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"no Host"),
        (get("/", "Host: y"), b"two Hosts"),
        (get("/", version="2.0"), b"HTTP/2.0"),
        (get("/", "Transfer-Encoding: gzip, chunked", method="POST"), b"transfer coding"),
        (get("/", "Transfer-Encoding: gzip", CHUNKED, method="POST"), b"transfer coding"),
        (get("/", CHUNKED, version="1.0", method="POST"), b"transfer coding"),
        (get("x:443", method="CONNECT"), b"tunnel"),
    ],
)
async def test_what_the_rules_of_http_have_refused_is_refused(request_bytes: bytes, flaw: bytes):
    async with served() as (_, reader, writer):
        writer.write(request_bytes)
        said = await reader.read()
        assert said.startswith(b"HTTP/1.1 400")
        assert flaw in said


@pytest.mark.anyio
async def test_a_client_that_leaves_is_noticed_by_whoever_answers_it():
    async with served() as (held, _, writer):
        writer.write(get("/"))
        exchange, gone = await held.exchanges.get(), asyncio.Event()
        exchange.watch(gone.set)
        writer.close()
        await gone.wait()
        assert exchange.is_gone
        exchange.reply(200, b"to nobody", TEXT, [])
        assert exchange.status == 0


@pytest.mark.anyio
async def test_an_answer_under_way_is_given_before_the_connection_closes():
    async with served() as (held, reader, writer):
        writer.write(get("/") + get("/next"))
        first = await held.exchanges.get()
        (connection,) = held.connections
        closed = connection.shutdown()
        first.reply(200, b"1", TEXT, [])
        (await held.exchanges.get()).reply(200, b"2", TEXT, [])
        assert (await reader.read()).count(b"HTTP/1.1 200") == 2
        await closed


@pytest.mark.anyio
async def test_an_idle_connection_is_closed_in_time():
    async with served(keep_alive_s=0.1) as (held, reader, writer):
        writer.write(get("/"))
        (await held.exchanges.get()).reply(200, b"", TEXT, [])
        assert (await reader.read()).startswith(b"HTTP/1.1 200")


@pytest.mark.anyio
async def test_an_answer_that_breaks_off_ends_its_connection():
    async with served() as (held, reader, writer):
        writer.write(get("/"))
        exchange = await held.exchanges.get()
        await exchange.begin(200, TEXT, [])
        await exchange.piece(b"half")
        exchange.refuse(Overloaded("too late to say so"))
        assert not (await reader.read()).endswith(b"0\r\n\r\n")


@pytest.mark.anyio
async def test_a_body_beyond_the_limit_is_refused_though_its_length_was_not_told():
    async with served() as (held, _, writer):
        limit = held.gateway.settings.limits.body_bytes
        writer.write(get("/", "Transfer-Encoding: chunked", method="POST"))
        exchange = await held.exchanges.get()
        body = asyncio.create_task(exchange.body())
        part = b"%x\r\n%b\r\n" % (2**20, b"x" * 2**20)
        for _ in range(limit // 2**20 + 1):
            writer.write(part)
        with pytest.raises(Exception, match="at most"):
            await body


@pytest.mark.anyio
async def test_bodies_of_all_requests_have_a_limit_together_and_are_let_go_of():
    async with served(limits=Limits(bodies_bytes=2500)) as (held, _, first):
        others = []
        for _ in range(2):
            address = first.get_extra_info("peername")
            others.append((await asyncio.open_connection(*address))[1])
        exchanges = []
        for writer in (first, *others):
            writer.write(get("/", "Content-Length: 2000", method="POST") + b"x" * 1000)
            exchanges.append(await held.exchanges.get())
        with pytest.raises(Exception, match="more than 2500 bytes") as caught:
            await exchanges[2].body()
        exchanges[2].refuse(caught.value)
        exchanges[0].reply(200, b"", TEXT, [])
        assert held.gateway.bodies.held_bytes == 1000
        gone = asyncio.Event()
        exchanges[1].watch(gone.set)
        others[0].close()
        await gone.wait()
        assert held.gateway.bodies.held_bytes == 0
        others[1].close()


@pytest.mark.anyio
async def test_packed_bodies_take_what_they_are_unpacked_until_they_are_answered():
    packed = gzip.compress(b" " * 1000)
    request = get("/", "Content-Encoding: gzip", f"Content-Length: {len(packed)}", method="POST") + packed
    async with served(limits=Limits(bodies_bytes=2500)) as (held, _, first):
        address = first.get_extra_info("peername")
        writers = [first, *[(await asyncio.open_connection(*address))[1] for _ in range(2)]]
        exchanges = []
        for writer in writers:
            writer.write(request)
            exchanges.append(await held.exchanges.get())
        for exchange in exchanges[:2] * 2:  # read once more, it takes no more
            assert await exchange.body() == b" " * 1000
        assert held.gateway.bodies.held_bytes == 2000 + len(packed)
        for _ in range(2):
            with pytest.raises(Exception, match="more than 2500 bytes") as caught:
                await exchanges[2].body()
        exchanges[2].refuse(caught.value)
        assert exchanges[2].status == 503
        assert held.gateway.bodies.held_bytes == 2000
        for exchange in exchanges[:2]:
            exchange.reply(200, b"", TEXT, [])
        assert held.gateway.bodies.held_bytes == 0
        for writer in writers[1:]:
            writer.close()


@pytest.mark.anyio
async def test_a_request_whose_turn_does_not_come_holds_nothing():
    async with served() as (held, _, writer):
        writer.write(get("/") + get("/", "Content-Length: 1000", method="POST") + b"x" * 1000)
        await held.exchanges.get()
        assert held.gateway.bodies.held_bytes == 1000
        (connection,) = held.connections
        connection.abort()
        while held.connections:
            await asyncio.sleep(0)
        assert held.gateway.bodies.held_bytes == 0


@pytest.mark.anyio
async def test_answers_carry_the_clients_request_id_or_a_new_one():
    async with served() as (held, reader, writer):
        made = []
        for sent in ("order-7/b:2", "", "two words", "a" * 129, "caf\xe9", 'x"y'):
            writer.write(get("/", f"X-Request-Id: {sent}") if sent else get("/"))
            exchange = await held.exchanges.get()
            exchange.reply(200, b"", TEXT, [])
            answer = await head(reader)
            made += [line.split(": ")[1] for line in answer.split("\r\n") if line.startswith("x-request-id")]
            assert exchange.id.decode() == made[-1]
        assert made[0] == "order-7/b:2"
        assert len(set(made)) == 6
        assert all(id.isascii() and len(id) <= 30 for id in made)


@pytest.mark.anyio
async def test_errors_of_the_servers_own_are_logged_with_the_request_they_are_about(caplog):
    async with served() as (held, reader, writer):
        for error in (Poison("3 workers died of it"), Overloaded("busy"), InputError("no")):
            name = type(error).__name__
            writer.write(get("/v1/x", f"X-Request-Id: {name}", method="HEAD"))
            (await held.exchanges.get()).refuse(error)
            assert f"x-request-id: {name}" in await head(reader)
        about = [record for record in caplog.records if hasattr(record, "event")]
        assert [record.getMessage() for record in about] == ["request Poison: 3 workers died of it"]
        assert about[0].event == {"request_id": "Poison", "method": "HEAD", "path": "/v1/x", "status": 500}
