"""One HTTP request and the way to answer it, with the limits every route shares."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from triptych.errors import DeadlineExceeded, InputError, nearest
from triptych.serve.gateway import Gateway
from triptych.serve.http.refusal import (
    Headers,
    Refusal,
    headers_of,
    kserve_body,
    native_body,
    openai_body,
    status_of,
)
from triptych.serve.work import JSON

T = TypeVar("T", bound=msgspec.Struct)

CLIENT_LEFT = 499  # no status of HTTP: how logs and metrics say that nobody was there to answer
CLOSE = (b"connection", b"close")
OPENAI_PATHS = ("/v1/completions", "/v1/images/generations", "/v1/models")
KSERVE_PATHS = ("/v2/health/", "/v2/models/", "/v2/repository/")
FORM = "application/x-www-form-urlencoded"
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
NOT_BRACKETS = re.compile(rb"[^\[\]{}]+")


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


class Exchange:
    """A request on its way to its one answer.

    Attributes:
        client: the connection it came through.
        method, path: of the request; the path is decoded and has no query.
        headers: of the request, names in lower case.
        keep_alive, is_chunkable: whether the connection outlives the answer; whether that may be chunked.
        is_whole: whether all of the request is here.
        arrived_at_s, deadline_s: when it came, and the latest moment of its answer, on the loop's clock.
        always: headers that its answer carries, whatever it is.
        model: name of the model it is about, for metrics.
        status: of the answer, once it has begun; 0 before.
        is_complete: whether all of the answer was written.
        is_gone: whether the client went away before that.
    """

    __slots__ = (
        "_body",
        "_gone",
        "_is_chunked",
        "_is_too_large",
        "_waiter",
        "always",
        "arrived_at_s",
        "client",
        "deadline_s",
        "gateway",
        "headers",
        "is_chunkable",
        "is_complete",
        "is_gone",
        "is_whole",
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
        self.is_whole = self.is_complete = self.is_gone = False
        self.arrived_at_s = time.monotonic()
        self.deadline_s = self.arrived_at_s + gateway.settings.limits.request_timeout_s
        self.model, self.status = "", 0
        self.always: Headers = []
        self._body: bytes | bytearray = b""
        self._is_too_large = self._is_chunked = False
        self._waiter: asyncio.Future[None] | None = None
        self._gone: Callable[[], object] | None = None

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

    def accept(self, offered: Sequence[str]) -> str:
        """The first media type of `offered` that the client prefers.

        Raises: Refusal (406) if it takes none of them.
        """
        header = self.headers.get(b"accept")
        if header is None or header == b"*/*":
            return offered[0]
        chosen = choose(header.decode("latin-1").lower(), offered)
        if chosen is None:
            got = header.decode("latin-1")
            raise Refusal(406, f"cannot answer as `{got}`", where="Accept", valid=", ".join(offered))
        return chosen

    def content_type(self, taken: Sequence[str]) -> str:
        """The media type of the body; none at all is the first of `taken`.

        Raises: Refusal (415) for any other than `taken`.
        """
        header = self.headers.get(b"content-type")
        if header is None:
            return taken[0]
        kind = header.partition(b";")[0].strip().lower().decode("latin-1")
        if kind not in taken:
            valid, remedy = ", ".join(taken), f"send `Content-Type: {taken[0]}`"
            if kind == FORM:
                remedy = f"that is what `curl -d` sends unless told: -H 'Content-Type: {taken[0]}'"
            raise Refusal(415, f"got `{kind}`", where="Content-Type", valid=valid, remedy=remedy)
        return kind

    async def body(self) -> bytes:
        """The body, once it is here.

        Raises: Refusal 411 without a length, 413 when too large, 408 when it is not here by the deadline.
        """
        self._check_length()
        if not self.is_whole:
            if self.headers.get(b"expect", b"").lower() == b"100-continue":
                self.client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout_at(self.deadline_s):
                    await self._waiter
            except TimeoutError as error:
                raise Refusal(408, "the body did not come in time", where="body", headers=[CLOSE]) from error
        return self.whole_body()

    def whole_body(self) -> bytes:
        """The body of a request that `is_whole`.

        Raises: Refusal 411 without a length, 413 when too large.
        """
        self._check_length()
        return bytes(self._body)

    def _check_length(self) -> None:
        limit = self.gateway.settings.limits.body_bytes
        length = self.headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in self.headers:
            raise Refusal(
                411, "there is no body", where="Content-Length", remedy="send a JSON object, `{}` at least"
            )
        if self._is_too_large:
            raise too_large(limit + 1, limit)
        if length is not None and int(length) > limit:
            raise too_large(int(length), limit)

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
        path = self.path
        is_openai = path in OPENAI_PATHS or (path.startswith("/v1/models/") and path.count("/") == 3)
        is_kserve = path.startswith(KSERVE_PATHS)
        body = (openai_body if is_openai else kserve_body if is_kserve else native_body)(error, status)
        self.reply(status, body, JSON, headers_of(error, status))
        self.cut_off()

    def cut_off(self) -> None:
        """End an answer that has begun and will not be completed: the client sees the connection close."""
        if self.status and not self.is_complete and not self.is_gone:
            self.keep_alive = False
            self._end()

    # What the connection calls

    def feed(self, part: bytes) -> None:
        """A part of the body; nothing is kept of one that is too large, or comes after the answer."""
        if self.is_complete or self._is_too_large:
            return
        if len(self._body) + len(part) > self.gateway.settings.limits.body_bytes:
            self._is_too_large, self._body = True, b""
            self._wake()
        elif not self._body:
            self._body = part
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += part

    def feed_end(self) -> None:
        """The body is here."""
        self.is_whole = True
        self._wake()

    def leave(self) -> None:
        """The client went away."""
        if self.is_complete:
            return
        self.is_gone = True
        if self._waiter is not None:
            self._waiter.cancel()
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
        return b"%bcontent-type: %b\r\n%b%b\r\n" % (
            self.client.head(status),
            content_type.encode(),
            framing,
            lines,
        )

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self) -> None:
        self.is_complete, self._gone = True, None
        self._count(self.status)
        self.client.end(self)

    def _count(self, status: int) -> None:
        self.gateway.metrics.answered(self.model, status, time.monotonic() - self.arrived_at_s)


def choose(header: str, offered: Sequence[str]) -> str | None:
    """The offered media type that an Accept header ranks highest.

    >>> choose("image/png;q=0.5, application/*", ("application/json", "image/png"))
    'application/json'
    """
    best, best_quality = None, 0.0
    for part in header.split(","):
        kind, _, parameters = part.strip().partition(";")
        quality = re.search(r"(?:^|;)\s*q=([0-9.]+)\s*(?:;|$)", parameters)
        weight = float(quality[1]) if quality and quality[1].count(".") <= 1 and quality[1] != "." else 1.0
        found = next((offer for offer in offered if covers(kind.strip(), offer)), None)
        if found is not None and weight > best_quality:
            best, best_quality = found, weight
    return best


def covers(kind: str, offer: str) -> bool:
    """Whether `kind` (a media type, `type/*` or `*/*`) takes what is offered."""
    return kind in (offer, "*/*") or kind == offer.partition("/")[0] + "/*"


def parse(body: bytes, kind: type[T], max_depth: int) -> T:
    """JSON bytes as a `kind`.

    Raises: InputError that names the field, what was expected, and the nearest name of an unknown one.

    >>> class Body(msgspec.Struct, forbid_unknown_fields=True):
    ...     n: int = 1
    >>> parse(b'{"n": 3}', Body, max_depth=8)
    Body(n=3)
    """
    check_depth(body, max_depth)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        where = path.strip(".`")
        unknown = re.search(r"unknown field `(.*)`", problem)
        if unknown:
            fields = kind.__struct_encode_fields__
            name = unknown[1]
            raise InputError(
                "is not known here", where=name, valid=", ".join(fields), remedy=nearest(name, fields)
            ) from error
        missing = re.search(r"missing required field `(.*)`", problem)
        if missing:
            raise InputError("is missing", where=missing[1]) from error
        raise InputError(problem, where=where or "body") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not JSON: {error}", where="body", valid="a JSON object") from error


def check_depth(body: bytes, limit: int) -> None:
    """Raise InputError if brackets nest deeper than `limit`; strings do not count."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    depth = deepest = 0
    for bracket in NOT_BRACKETS.sub(b"", STRINGS.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > deepest:
            deepest = depth
            if deepest > limit:
                raise InputError(f"nests deeper than {limit}", where="body", valid=f"at most {limit} levels")


def too_large(size_bytes: int, limit_bytes: int) -> Refusal:
    """413, and the connection is closed: the rest of the body is not read."""
    return Refusal(
        413,
        f"has {size_bytes} bytes or more",
        where="body",
        valid=f"at most {limit_bytes} bytes",
        headers=[(b"connection", b"close")],
    )


def new_seed() -> int:
    """A seed for a request that names none: below 2**53, so that every JSON reader keeps it exact."""
    return random.getrandbits(53)
