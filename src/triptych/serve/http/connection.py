"""One client's connection: exchanges answered in the order of their requests.

Limits are kept here: the time of a header, a reader that takes nothing, a connection left idle.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from triptych.serve.gateway import Gateway
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.refusal import Refusal, native_body
from triptych.serve.http.request_reader import NoRequest, RequestReader
from triptych.serve.settings import Http

LINGER_S = 1.0  # by this an idle connection outlives the listener: a request may be on its way
REST_S = 2.0  # for this long a client may go on sending what will not be read, before it is cut off
STATUS_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Responder(Protocol):
    """What answers exchanges."""

    gateway: Gateway

    def respond(self, exchange: Exchange) -> None:
        """Answer, now or later; never raises."""


class Connections(Protocol):
    """Where connections note themselves."""

    def add(self, connection: Connection) -> None:
        """It is open."""

    def discard(self, connection: Connection) -> None:
        """It is closed."""


class Connection(asyncio.Protocol):
    """Reads requests, hands each to the responder when its turn comes, and writes the answers.

    A request's turn comes once those before it on this connection are answered and its header is here; at
    the end of the read that brought it, so that its body is often here too.

    Args:
        connections: where it notes itself while it is open.
    """

    def __init__(self, responder: Responder, settings: Http, connections: Connections) -> None:
        self._responder, self._settings, self._connections = responder, settings, connections
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader(responder.gateway, self, self._arrived)
        self._transport: asyncio.Transport
        self._current: Exchange | None = None  # it is answered now
        self._next: deque[Exchange] = deque()  # pipelined behind it
        self._is_closing = False  # when all that was read is answered
        self._is_broken = False  # what still comes is not HTTP, or comes too late, and is not read
        self._is_paused = False
        self._drained: asyncio.Future[None] | None = None  # set while the client takes nothing
        self._idle_since_s = 0.0
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._header_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stuck_timer: asyncio.TimerHandle | None = None

    # What the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock of the first header starts."""
        self._transport = transport
        self._expect_header()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on; then it is the next request's turn, if none is being answered."""
        if self._is_broken:
            return
        try:
            self._reader.feed(data)
        except NoRequest as error:
            self._give_up_reading(error.status, error.flaw)
            return
        if self._reader.begun and self._header_timer is None and not self._is_paused:
            self._expect_header()
        if self._next:
            self._turn()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody waits for what is being answered here."""
        self._connections.discard(self)
        self._closed.set_result(None)
        self._stop_header_timer()
        for timer in (self._idle_timer, self._stuck_timer):
            if timer is not None:
                timer.cancel()
        self._release()
        current, self._current = self._current, None
        self._drop_next()
        if current is not None:
            current.leave()

    def pause_writing(self) -> None:
        """The client takes nothing for now: it gets no more answers, and must take something in time."""
        self._drained = self._loop.create_future()
        self._pace()
        self._expect_taking()

    def resume_writing(self) -> None:
        """It takes again."""
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
        self._release()
        self._turn()

    # What exchanges call

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self._transport.write(data)

    def end(self, exchange: Exchange) -> None:
        """The answer of `exchange` is complete: the next one's turn, or the end."""
        if exchange is not self._current:
            return
        self._current = None
        if not exchange.keep_alive:
            self._close()
        elif self._next:
            self._loop.call_soon(self._turn)
        elif self._is_closing:
            self._close()
        else:
            self._rest()

    async def drain(self) -> None:
        """Return once the client has taken most of what was written, or is gone."""
        if self._drained is not None:
            await asyncio.shield(self._drained)

    def abort(self) -> None:
        """Cut the client off."""
        self._transport.abort()

    def turn_away(self) -> None:
        """There are as many connections as there may be, and each is being answered."""
        self._give_up_reading(503, "there are too many connections", where="server")

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is being answered here."""
        return self._current is None and not self._next

    def head(self, status: int) -> bytes:
        """The first lines of every answer."""
        return STATUS_LINE[status] + date_line()

    # What the server calls

    def shutdown(self) -> asyncio.Future[None]:
        """Close after the answer under way; if there is none, a moment later: a request may be on its way.

        Returns: what is done once the connection is closed.
        """
        if self._is_idle():
            self._loop.call_later(LINGER_S, self._close_idle)
        else:
            self._is_closing = True
        return self._closed

    def _arrived(self, exchange: Exchange) -> None:
        """A header came in time."""
        self._stop_header_timer()
        self._next.append(exchange)

    def _turn(self) -> None:
        """Answer the next request, unless one is being answered or the client takes nothing."""
        while self._next and self._current is None and self._drained is None:
            if self._transport.is_closing():
                return
            self._current = self._next.popleft()
            self._responder.respond(self._current)
        self._pace()

    def _drop_next(self) -> None:
        """Nothing that was read is answered any more."""
        while self._next:
            self._next.popleft().forget()

    def _pace(self) -> None:
        """Read no further while requests wait here, or while the client takes nothing.

        The rest of a header that has begun cannot come in that time: its clock starts anew afterwards.
        """
        wanted = bool(self._next) or self._drained is not None
        if wanted == self._is_paused or self._transport.is_closing():
            return
        self._is_paused = wanted
        if wanted:
            self._transport.pause_reading()
            self._stop_header_timer()
        else:
            self._transport.resume_reading()
            if self._reader.begun and not self._is_broken:
                self._expect_header()

    def _is_idle(self) -> bool:
        """Whether no request is being answered, and none has begun to arrive."""
        return self.is_waiting and not self._reader.begun

    def _close_idle(self) -> None:
        if self._is_idle():
            self._transport.close()
        else:
            self._is_closing = True

    def _rest(self) -> None:
        self._idle_since_s = self._loop.time()
        if self._idle_timer is None:
            self._idle_timer = self._loop.call_later(self._settings.keep_alive_s, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """Close if idle for long enough; else look again when it could have been."""
        self._idle_timer = None
        if self._is_idle():
            left_s = self._idle_since_s + self._settings.keep_alive_s - self._loop.time()
            if left_s <= 0:
                self._transport.close()
            else:
                self._idle_timer = self._loop.call_later(left_s, self._look_whether_idle)

    def _expect_header(self) -> None:
        self._header_timer = self._loop.call_later(self._settings.header_timeout_s, self._header_late)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_late(self) -> None:
        self._give_up_reading(408, f"was not here within {self._settings.header_timeout_s:g} s")

    def _expect_taking(self) -> None:
        left_bytes = self._transport.get_write_buffer_size()
        self._stuck_timer = self._loop.call_later(
            self._settings.write_timeout_s, self._look_whether_stuck, left_bytes
        )

    def _look_whether_stuck(self, left_bytes: int) -> None:
        """Cut off a client that has taken nothing in all that time; else look again as long after."""
        if self._transport.get_write_buffer_size() >= left_bytes:
            self._transport.abort()
        else:
            self._expect_taking()

    def _release(self) -> None:
        """Wake who waits in `drain`."""
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.set_result(None)

    def _give_up_reading(self, status: int, flaw: str, where: str = "header") -> None:
        """What came is no request, or no end of one: that is said where nothing else is to be said before.

        A request whose body breaks off is answered with it; one that is answered already is not answered
        twice; whole ones before are answered as if nothing had come behind them.
        """
        self._stop_header_timer()
        self._is_broken = self._is_closing = True
        broken, self._reader.reading = self._reader.reading, None
        if broken is not None and not broken.is_complete:
            broken.break_off(Refusal(status, flaw, where="body"))
        elif broken is None and self._current is None and not self._next:
            self._refuse(Refusal(status, flaw, where=where))
            return
        if self._current is None and not self._next:
            self._close()
        else:
            self._turn()

    def _refuse(self, error: Refusal) -> None:
        """What is no request gets an answer in the shape of every other error."""
        body, status = native_body(error, error.status), error.status
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.write(self.head(status) + head % len(body) + body)
        self._close()

    def _close(self) -> None:
        """Close, once what was written is sent.

        A client that is still sending would be reset before it has read its answer: it is told that nothing
        more comes, and has a moment to find out.
        """
        if self._transport.is_closing():
            return
        if self._reader.reading is None and not self._is_broken:
            self._transport.close()
            return
        self._is_broken = True
        self._drop_next()
        self._pace()
        self._transport.write_eof()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = self._loop.call_later(REST_S, self._transport.close)


_date_s, _date = 0, b""


def date_line() -> bytes:
    """The Date field, made anew once a second."""
    global _date_s, _date
    now_s = int(time.time())
    if now_s != _date_s:
        _date_s, _date = now_s, b"date: %b\r\n" % formatdate(now_s, usegmt=True).encode()
    return _date
