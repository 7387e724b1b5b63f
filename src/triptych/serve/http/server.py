"""The HTTP server: uvicorn inside our own process, under our own supervision, signals and drain.

What uvicorn leaves open is closed here: limits on the time and size of a request's header, on a reader that
takes nothing, errors as JSON, and a way down on which no client is cut off.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from triptych.serve.http.listener import close_to_new
from triptych.serve.http.refusal import Refusal, native_body
from triptych.serve.settings import Http
from triptych.serve.supervise.spec import Exit, Shutdown

MAX_HEADER_BYTES = 64 * 1024
LINGER_S = 0.25  # by this an idle connection outlives the listener: a request may be on its way


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
        self.write_timeout_s = settings.write_timeout_s


class LimitedProtocol(HttpToolsProtocol):
    """One connection: its headers must be small and come in time, its answers must be taken."""

    config: ServerConfig
    _timer: asyncio.TimerHandle | None = None
    _size = 0
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock starts with the connection."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing left to time."""
        self._stop_timer()
        self._stop_stuck()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives before the header is complete."""
        if self._timer is not None or self._is_idle():
            end = data.find(b"\r\n\r\n")
            self._size += len(data) if end < 0 else end
            if self._size > MAX_HEADER_BYTES:
                self._refuse(431, f"is larger than {MAX_HEADER_BYTES} bytes")
                return
        super().data_received(data)

    def pause_writing(self) -> None:
        """The client takes nothing for now: from here on it must take something."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stop_stuck()
        super().resume_writing()

    def shutdown(self) -> None:
        """Close after the answer under way; if there is none, a moment later: a request may be on its way."""
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_idle)
        else:
            super().shutdown()

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

    def _is_idle(self) -> bool:
        """Whether no request is being answered, and none has begun to arrive."""
        arriving = self._timer is not None and self._size > 0
        return not arriving and (self.cycle is None or self.cycle.response_complete)

    def _close_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _expect_reading(self) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        self._stuck = self.loop.call_later(self.config.write_timeout_s, self._cut_off, left_bytes)

    def _cut_off(self, left_bytes: int) -> None:
        """Close on a client that has taken nothing in all that time; else wait as long again."""
        if self.transport.get_write_buffer_size() >= left_bytes:
            self.transport.abort()
        else:
            self._expect_reading()

    def _stop_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self.config.header_timeout_s, self._too_late)

    def _stop_timer(self) -> None:
        self._size = 0
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
        self._listener = listener
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
        """Close the listener, give requests in flight at most `shutdown` seconds, then cut them off.

        Whoever was let in before is answered: the listener takes no one new, then its backlog is emptied.
        """
        if shutdown != "brutal_kill" and not self._task.done():
            await close_to_new(self._listener)
        if isinstance(shutdown, str):
            self._server.force_exit = shutdown == "brutal_kill"
        else:
            self._server.config.timeout_graceful_shutdown = max(1, round(shutdown))
        self._server.should_exit = True
        return await self.wait()
