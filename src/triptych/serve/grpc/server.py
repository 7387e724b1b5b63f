"""The gRPC server, as its supervisor sees it: together with that of HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from triptych.serve.grpc.door import Door
from triptych.serve.grpc.service import handlers
from triptych.serve.http.app import App
from triptych.serve.settings import Settings
from triptych.serve.supervise.spec import Child, Exit, Shutdown

LARGEST = 2**31 - 1  # its numbers are C ints
LONG_S = 86_400.0  # what `infinity` is to a library that takes numbers only


class GrpcChild:
    """The running server, and the one of HTTP, as one child: both close at once, in the time of one."""

    def __init__(self, door: Door, server: Any, http: Child) -> None:
        self._door, self._server, self._http = door, server, http

    @classmethod
    async def start(cls, app: App, address: str, http: Child) -> GrpcChild:
        """Accept calls at `address` from now on.

        Raises: RuntimeError if it cannot be listened on.
        """
        settings = app.gateway.settings
        most = min(settings.http.connections, LARGEST)  # a connection of HTTP has one request at a time
        door, server = Door(app), grpc.aio.server(options=options(settings), maximum_concurrent_rpcs=most)
        server.add_generic_rpc_handlers((handlers(door),))
        server.add_insecure_port(address)
        await server.start()
        return cls(door, server, http)

    @property
    def pid(self) -> None:
        """None: it lives in the node."""
        return None

    async def wait(self) -> Exit:
        """Return once the servers were stopped."""
        return await self._http.wait()

    async def stop(self, shutdown: Shutdown) -> Exit:
        """Take no new calls, give those in flight at most `shutdown` seconds, then cancel them."""
        _, end = await asyncio.gather(self._close(shutdown), self._http.stop(shutdown))
        return end

    async def _close(self, shutdown: Shutdown) -> None:
        server, self._server = self._server, None  # the library's threads end with the last reference
        if server is None:
            return
        if shutdown != "brutal_kill":
            await self._door.close()
        words = {"brutal_kill": 0.0, "infinity": LONG_S}
        await server.stop(words[shutdown] if isinstance(shutdown, str) else shutdown)
        tasks = self._door.app.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def options(settings: Settings) -> list[tuple[str, int]]:
    """What the library is told: the limits that HTTP has too, and no compression.

    Not all its versions look at a message's size before they unpack it.
    """
    limits, http = settings.limits, settings.http
    found = [
        ("grpc.compression_enabled_algorithms_bitset", 1),  # 1: none
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_connection_idle_ms", round(http.keep_alive_s * 1000)),
        ("grpc.server_handshake_timeout_ms", round(http.header_timeout_s * 1000)),
    ]
    return [(name, min(value, LARGEST)) for name, value in found]
