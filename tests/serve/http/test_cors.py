"""Pages of other origins: what they may read, and that they act on nothing unless told."""

from __future__ import annotations

import asyncio
import json

import pytest

from triptych.serve.catalog import Catalog
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.app import App
from triptych.serve.http.exchange import Exchange, Nobody
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Http, Settings

INDEX = "/v2/repository/index"


class Idle:
    """A pool nobody asks."""


class Client(Nobody):
    """Keeps what it is sent."""

    said = b""

    def write(self, data: bytes) -> None:
        self.said += data


async def ask(origins: tuple[str, ...], path: str, method: str = "POST", **headers: str) -> tuple[int, bytes]:
    settings = Settings(http=Http(cors_origins=origins))
    app = App(Gateway(Generation(Catalog(), Idle()), settings, Metrics()))  # type: ignore[arg-type]
    fields = {name.encode(): value.encode() for name, value in headers.items()}
    client = Client()
    exchange = Exchange(app.gateway, client, method, path, {b"host": b"127.0.0.1:8000", **fields})
    exchange.feed_end()
    app.respond(exchange)
    if app.tasks:
        await asyncio.wait(app.tasks)
    return exchange.status, client.said


FOREIGN = ["https://example.org", "null", "", "http://127.0.0.1", "http://127.0.0.1:8001", "127.0.0.1:8000"]


@pytest.mark.anyio
@pytest.mark.parametrize("allowed", [(), ("https://example.com",)])
@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_of_another_origin_acts_on_nothing(origin: str, allowed: tuple[str, ...]) -> None:
    status, said = await ask(allowed, INDEX, origin=origin)
    assert status == 403
    error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]  # the shape of its route
    assert "Origin" in error
    assert "http.cors_origins" in error
    status, said = await ask(allowed, "/v1/completions", origin=origin)
    assert (status, json.loads(said.partition(b"\r\n\r\n")[2])["error"]["param"]) == (403, "Origin")
    assert (await ask(allowed, INDEX, "DELETE", origin=origin))[0] == 403
    for method in ("GET", "HEAD"):
        status, said = await ask(allowed, "/v2", method, origin=origin)
        assert status == 200
        assert b"access-control" not in said


@pytest.mark.anyio
async def test_who_is_no_page_the_server_s_own_pages_and_those_allowed_may_act() -> None:
    assert (await ask((), INDEX))[0] == 200
    assert (await ask((), INDEX, origin="http://127.0.0.1:8000"))[0] == 200
    assert (await ask((), INDEX, origin="https://Example.org", host="example.org"))[0] == 200
    assert (await ask(("https://example.com",), INDEX, origin="http://127.0.0.1:8000"))[0] == 200
    assert (await ask(("https://example.com",), INDEX, origin="https://example.com"))[0] == 200
    assert (await ask(("*",), INDEX, origin="null"))[0] == 200
