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

    def workers(self) -> list[None]:
        return []


class Slow:
    """An application that takes a few turns of the event loop for an answer in two pieces, while draining."""

    def __init__(self, is_draining: bool = True) -> None:
        self.gateway = Gateway(Generation(Catalog(), Idle()), Settings(), Metrics())  # type: ignore[arg-type]
        self.gateway.is_draining = is_draining
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


def ask(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.anyio
@pytest.mark.parametrize("is_draining", [True, False])
async def test_the_next_server_on_the_same_socket_lets_new_clients_in(is_draining: bool):
    with socket.create_server(("127.0.0.1", 0)) as kept:  # as the root keeps it, for node after node
        for _ in range(2):
            child = await HttpChild.start(Slow(is_draining), Http(), kept.dup())  # type: ignore[arg-type]
            client = await asyncio.to_thread(socket.create_connection, kept.getsockname(), 5)
            with client:
                assert (await asyncio.to_thread(ask, client)).endswith(b"0\r\n\r\n")
            await child.stop(10)


@pytest.mark.anyio
async def test_who_comes_after_a_server_gave_up_waits_for_the_next_one():
    with socket.create_server(("127.0.0.1", 0)) as kept:
        child = await HttpChild.start(Slow(is_draining=False), Http(), kept.dup())  # type: ignore[arg-type]
        await child.stop(10)
        with socket.create_connection(kept.getsockname(), 5) as client:
            child = await HttpChild.start(Slow(), Http(), kept.dup())  # type: ignore[arg-type]
            assert (await asyncio.to_thread(ask, client)).endswith(b"0\r\n\r\n")
        await child.stop(10)


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
