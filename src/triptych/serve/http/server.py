"""The HTTP server: uvicorn inside our own process, under our own supervision, signals and drain.

What uvicorn leaves open is closed here: limits on the time and size of a request's header, errors as JSON.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from triptych.serve.http.refusal import Refusal, native_body
from triptych.serve.settings import Http
from triptych.serve.supervise.spec import Exit, Shutdown

MAX_HEADER_BYTES = 64 * 1024


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration, and the header's time limit."""

    def __init__(self, app: Any, settings: Http) -> None:
        super().__init__(
            app,
            http=LimitedProtocol,
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nothing here depends on who the client says it is
            timeout_keep_alive=int(settings.keep_alive_s),
            backlog=settings.backlog,
        )
        self.header_timeout_s = settings.header_timeout_s


class LimitedProtocol(HttpToolsProtocol):
    """One connection, whose headers must be small and come in time."""

    config: ServerConfig
    _timer: asyncio.TimerHandle | None = None
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock starts with the connection."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing left to time."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before the header is complete."""
        super().data_received(data)
        if self._timer is not None:
            self._size += len(data)
            if self._size > MAX_HEADER_BYTES:
                self._refuse(431, f"is larger than {MAX_HEADER_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The clock starts again with each request on a kept connection."""
        super().on_message_begin()
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        """In time."""
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets an answer in the shape of every other error."""
        self._refuse(400, msg)

    def _start_timer(self) -> None:
        self._size = 0
        self._timer = self.loop.call_later(self.config.header_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._refuse(408, f"was not here within {self.config.header_timeout_s:g} s")

    def _refuse(self, status: int, problem: str) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = native_body(Refusal(status, problem, where="header"), status)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(
            body
        )
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the node decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class HttpChild:
    """The running server, as its supervisor sees it; made by `start_http`."""

    def __init__(self, app: Any, settings: Http, listener: socket.socket) -> None:
        self._server = Server(ServerConfig(app, settings))
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")

    @property
    def pid(self) -> None:
        """None: it is a task of the node."""
        return None

    async def wait(self) -> Exit:
        """Return once the server has ended."""
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return Exit(detail="cancelled")
        error = self._task.exception()
        return Exit(code=0) if error is None else Exit(exception=error)

    async def stop(self, shutdown: Shutdown) -> Exit:
        """Close the listener, give requests in flight at most `shutdown` seconds, then cut them off."""
        if isinstance(shutdown, str):
            self._server.force_exit = shutdown == "brutal_kill"
        else:
            self._server.config.timeout_graceful_shutdown = max(1, round(shutdown))
        self._server.should_exit = True
        return await self.wait()
