"""The HTTP server, as its supervisor sees it: a listening socket, its connections, and a way down on which
no client is cut off.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from triptych.serve.http.app import App
from triptych.serve.http.connection import Connection
from triptych.serve.http.crowd import Crowd, room
from triptych.serve.http.listener import admit_new, close_to_new
from triptych.serve.settings import Http
from triptych.serve.supervise.spec import Exit, Shutdown


class HttpChild:
    """The running server; made by `start`."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        self._app, self._listener = app, listener
        gateway = app.gateway
        most = room(gateway.settings.http.connections, len(gateway.pool.workers()))
        self._connections: Crowd[Connection] = Crowd(most)
        self._server: asyncio.Server
        self._exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(cls, app: App, settings: Http, listener: socket.socket) -> HttpChild:
        """Accept connections from now on."""
        admit_new(listener)
        child = cls(app, listener)
        connect = partial(Connection, app, settings, child._connections)
        loop = asyncio.get_running_loop()
        child._server = await loop.create_server(connect, sock=listener, backlog=settings.backlog)
        return child

    @property
    def pid(self) -> None:
        """None: it lives in the node."""
        return None

    async def wait(self) -> Exit:
        """Return once the server was stopped."""
        return await asyncio.shield(self._exited)

    async def stop(self, shutdown: Shutdown) -> Exit:
        """Close the listener, give requests in flight at most `shutdown` seconds, then cut them off.

        On a drain whoever was let in before is answered: the listener takes no one new, then its backlog is
        emptied. Else another part of the node gave up: who is in the backlog waits for the next node.
        """
        if self._exited.done():
            return await self.wait()
        if shutdown != "brutal_kill" and self._app.gateway.is_draining:
            await close_to_new(self._listener)
        self._server.close()
        if shutdown != "brutal_kill":
            await self._finish(None if shutdown == "infinity" else float(shutdown))
        for connection in list(self._connections):
            connection.abort()
        for task in self._app.tasks:
            task.cancel()
        await asyncio.gather(*self._app.tasks, return_exceptions=True)
        self._exited.set_result(Exit(code=0))
        return await self.wait()

    async def _finish(self, timeout_s: float | None) -> None:
        """Let every connection end with the answer under way."""
        await asyncio.sleep(0)  # who was accepted just now notes itself in the next turn of the event loop
        closed = [connection.shutdown() for connection in list(self._connections)]
        if closed:
            await asyncio.wait(closed, timeout=timeout_s)
