"""The way down of a server: nobody who was let in is cut off."""

from __future__ import annotations

import asyncio
import socket

import pytest

from triptych.serve.catalog import Catalog
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.server import HttpChild
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Http, Settings


class Idle:
    """A pool nobody asks."""


class Slow:
    """An application that takes a few turns of the event loop for an answer in two pieces."""

    def __init__(self) -> None:
        self.gateway = Gateway(Generation(Catalog(), Idle()), Settings(), Metrics())  # type: ignore[arg-type]
        self.tasks: set[asyncio.Task[None]] = set()

    def respond(self, exchange: Exchange) -> None:
        self.tasks.add(asyncio.create_task(self._answer(exchange)))

    async def _answer(self, exchange: Exchange) -> None:
        await exchange.begin(200, "text/plain", [])
        for _ in range(20):
            await asyncio.sleep(0)
        await exchange.piece(b"whole", more=False)


@pytest.mark.anyio
async def test_who_comes_in_at_the_very_moment_of_the_stop_is_answered():
    listener = socket.create_server(("127.0.0.1", 0))
    child = await HttpChild.start(Slow(), Http(), listener)  # type: ignore[arg-type]
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await child.stop(10)  # the event loop has not accepted the client yet
        client.settimeout(10)
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert said.endswith(b"5\r\nwhole\r\n0\r\n\r\n")


@pytest.mark.anyio
async def test_who_is_accepted_while_the_stop_begins_is_answered():
    listener = socket.create_server(("127.0.0.1", 0))
    child = await HttpChild.start(Slow(), Http(), listener)  # type: ignore[arg-type]
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.create_task(child.stop(10))  # begins when the event loop has looked at the listener
        client.settimeout(10)
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert said.endswith(b"5\r\nwhole\r\n0\r\n\r\n")
