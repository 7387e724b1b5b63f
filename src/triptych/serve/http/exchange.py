"""One HTTP request and the way to answer it, with the limits every route shares."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from triptych.errors import DeadlineExceeded, InputError
from triptych.serve.catalog import Model
from triptych.serve.gateway import Gateway
from triptych.serve.http import media_types
from triptych.serve.http.json_body import parse
from triptych.serve.http.refusal import CLOSE, Headers, Refusal, body_of, headers_of, status_of
from triptych.serve.http.request_body import RequestBody
from triptych.serve.http.request_id import request_id
from triptych.serve.work import JSON

T = TypeVar("T", bound=msgspec.Struct)

OURS = (500, 507)  # nobody's fault but the server's; the others say that it is busy, or what the client did
CLIENT_LEFT = 499  # no status of HTTP: how logs and metrics say that nobody was there to answer


log = logging.getLogger(__name__)


class Client(Protocol):
    """What an exchange needs of its connection."""

    def write(self, data: bytes) -> None:
        """Send."""

    def head(self, status: int) -> bytes:
        """The first lines of an answer."""

    async def drain(self) -> None:
        """Wait while the client's buffer is full."""

    def end(self, exchange: Exchange) -> None:
        """The answer of `exchange` is complete."""


class Nobody:
    """The client of an exchange whose answer goes another way than over a connection of HTTP."""

    def write(self, data: bytes) -> None:
        """Nowhere."""

    def head(self, status: int) -> bytes:
        """None."""
        return b""

    async def drain(self) -> None:
        """At once."""

    def end(self, exchange: Exchange) -> None:
        """Nothing to be done."""


class Exchange:
    """A request on its way to its one answer.

    Attributes:
        client: the connection it came through.
        method, path: of the request; the path is decoded and has no query.
        headers: of the request, names in lower case.
        keep_alive, is_chunkable: whether the connection outlives the answer; whether that may be chunked.
        arrived_at_s, deadline_s: when it came, and the latest moment of its answer, on the loop's clock.
        always: headers that its answer carries, whatever it is.
        model: name of the model it is about, for metrics.
        status: of the answer, once it has begun; 0 before.
        is_complete: whether all of the answer was written.
        is_gone: whether the client went away before that.
        id: what its answer and the log call it.
    """

    __slots__ = (
        "_body",
        "_gone",
        "_id",
        "_is_chunked",
        "always",
        "arrived_at_s",
        "client",
        "deadline_s",
        "gateway",
        "headers",
        "is_chunkable",
        "is_complete",
        "is_gone",
        "keep_alive",
        "method",
        "model",
        "path",
        "status",
    )

    def __init__(
        self, gateway: Gateway, client: Client, method: str, path: str, headers: dict[bytes, bytes]
    ) -> None:
        self.gateway, self.client = gateway, client
        self.method, self.path, self.headers = method, path, headers
        self.keep_alive = self.is_chunkable = True
        self.is_complete = self.is_gone = False
        self.arrived_at_s = time.monotonic()
        self.deadline_s = self.arrived_at_s + gateway.settings.limits.request_timeout_s
        self.model, self.status = "", 0
        self.always: Headers = []
        self._body = RequestBody(headers, gateway.settings.limits.body_bytes, gateway.bodies)
        self._id = b""
        self._is_chunked = False
        self._gone: Callable[[], object] | None = None

    @property
    def id(self) -> bytes:
        """See `request_id`."""
        if not self._id:
            self._id = request_id(self.headers)
        return self._id

    @property
    def is_whole(self) -> bool:
        """Whether all of the request is here."""
        return self._body.is_whole

    def read_deadline(self) -> None:
        """Take over the deadline of the `Request-Timeout` header.

        Raises: InputError unless it is a number of seconds above 0.
        """
        text = self.headers.get(b"request-timeout")
        if text is None:
            return
        try:
            timeout_s = float(text)
        except ValueError:
            timeout_s = math.nan
        if not 0 < timeout_s < math.inf:
            got = text.decode("latin-1")
            raise InputError(f"got `{got}`", where="Request-Timeout", valid="a number of seconds above 0")
        self.deadline_s = min(self.deadline_s, self.arrived_at_s + timeout_s)

    def about(self, model: str) -> None:
        """Note the model it is about, whose own deadline holds as well."""
        self.model = model
        longest_s = self.gateway.settings.limits.model_timeouts_s.get(model)
        if longest_s is not None:
            self.deadline_s = min(self.deadline_s, self.arrived_at_s + longest_s)

    def find(self, name: str) -> Model:
        """The model it is about, to be asked something now; raises what `Catalog.find` does."""
        catalog = self.gateway.catalog
        self.about(catalog.known(name).name)
        return catalog.find(name)

    def accept(self, offered: Sequence[str]) -> str:
        """The first media type of `offered` that the client prefers.

        Raises: Refusal (406) if it takes none of them.
        """
        return media_types.accepted(self.headers, offered)

    def content_type(self, taken: Sequence[str]) -> str:
        """The media type of the body; none at all is the first of `taken`.

        Raises: Refusal (415) for any other than `taken`.
        """
        return media_types.sent(self.headers, taken)

    async def body(self) -> bytes:
        """The body, once it is here.

        Raises: Refusal 411 without a length, 413 when too large, 408 when it is not here by the deadline.
        """
        self._body.check_length()
        if not self.is_whole:
            if self.headers.get(b"expect", b"").lower() == b"100-continue":
                self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await self._body.wait(self.deadline_s)
        return self._body.whole()

    def whole_body(self) -> bytes:
        """The body of a request that `is_whole`.

        Raises: Refusal 411 without a length, 413 when too large.
        """
        return self._body.whole()

    async def json(self, kind: type[T]) -> T:
        """The body as a `kind`, once it is here.

        Raises: InputError that names the field, and everything `body` and `content_type` raise.
        """
        self.content_type((JSON,))
        await self.body()
        return self.whole_json(kind)

    def whole_json(self, kind: type[T]) -> T:
        """The body of a request that `is_whole`, as a `kind`; raises what `json` raises."""
        self.content_type((JSON,))
        return parse(self.whole_body(), kind, self.gateway.settings.limits.json_depth)

    def watch(self, gone: Callable[[], object]) -> None:
        """Call `gone` if the client goes away before the answer is complete."""
        self._gone = gone
        if self.is_gone:
            gone()

    def reply(self, status: int, body: bytes, content_type: str, headers: Headers) -> None:
        """Send the whole answer, in one piece."""
        if self.status or self.is_gone:
            return
        head = self._head(status, content_type, headers, b"content-length: %d\r\n" % len(body))
        self.client.write(head if self.method == "HEAD" else head + body)
        self._end()

    async def answer(self, status: int, body: bytes, content_type: str, headers: Headers) -> None:
        """Send the whole answer; for coroutines."""
        self.reply(status, body, content_type, headers)

    async def begin(self, status: int, content_type: str, headers: Headers) -> None:
        """Send status and headers; the body follows by `piece`."""
        self._is_chunked = self.is_chunkable
        self.keep_alive = self.keep_alive and self.is_chunkable
        framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        self.client.write(self._head(status, content_type, headers, framing))

    async def piece(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of an answer that has begun; waits while the client's buffer is full."""
        await self.client.drain()
        if self.is_gone:
            return
        if self._is_chunked:
            end = b"" if more else b"0\r\n\r\n"
            body = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
        self.client.write(body)
        if not more:
            self._end()

    def refuse(self, error: Exception) -> None:
        """Answer with an error, in the shape the route speaks; cut off an answer that had begun."""
        status = status_of(error)
        if isinstance(error, DeadlineExceeded):
            self.gateway.metrics.expired.labels(self.model).inc()
        self.note(error)
        body = body_of(error, status, self.path)
        self.reply(status, body, JSON, headers_of(error, status))
        self.cut_off()

    def note(self, error: Exception) -> None:
        """Write into the log which request an error of ours is about."""
        status = status_of(error)
        if status in OURS:
            id = self.id.decode()
            fields = {"request_id": id, "method": self.method, "path": self.path, "status": status}
            log.error("request %s: %s", id, error or type(error).__name__, extra={"event": fields})

    def cut_off(self) -> None:
        """End an answer that has begun and will not be completed: the client sees the connection close."""
        if self.status and not self.is_complete and not self.is_gone:
            self.keep_alive = False
            self._end()

    # What the connection calls

    def feed(self, part: bytes) -> None:
        """A part of the body; nothing is kept of one that is too large, or comes after the answer."""
        if not self.is_complete:
            self._body.feed(part)

    def feed_end(self) -> None:
        """The body is here."""
        self._body.feed_end()

    def break_off(self, error: Refusal) -> None:
        """The rest of the request is none: its answer says so, if it needs the body, and is the last one."""
        self.keep_alive = False
        self._body.break_off(error)

    def forget(self) -> None:
        """Its turn will not come."""
        self._body.drop()

    def leave(self) -> None:
        """The client went away."""
        if self.is_complete:
            return
        self.is_gone = True
        self._body.cancel()
        self._body.drop()
        if self._gone is not None:
            self._gone()
        self.gateway.metrics.cancelled.labels(self.model).inc()
        self._count(self.status or CLIENT_LEFT)

    def _head(self, status: int, content_type: str, headers: Headers, framing: bytes) -> bytes:
        self.status = status
        if self.always:
            headers = [*headers, *self.always]
        if not self.is_whole and b"expect" in self.headers:
            self.keep_alive = False  # whether the body it asked about will come is the client's choice
        if not self.keep_alive or self.gateway.is_draining or CLOSE in headers:
            self.keep_alive = False
            headers = [*(header for header in headers if header != CLOSE), CLOSE]
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return b"%bcontent-type: %b\r\nx-request-id: %b\r\n%b%b\r\n" % (
            self.client.head(status),
            content_type.encode(),
            self.id,
            framing,
            lines,
        )

    def _end(self) -> None:
        self.is_complete, self._gone = True, None
        self._body.drop()
        self._count(self.status)
        self.client.end(self)

    def _count(self, status: int) -> None:
        self.gateway.metrics.answered(self.model, status, time.monotonic() - self.arrived_at_s)
