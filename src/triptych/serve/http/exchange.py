"""One HTTP request and the way to answer it: raw ASGI, with the limits every route shares."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from triptych.errors import InputError, nearest
from triptych.serve.gateway import Gateway
from triptych.serve.http.refusal import Headers, Refusal
from triptych.serve.work import JSON

Receive = Callable[[], Any]
Send = Callable[[Any], Any]
T = TypeVar("T", bound=msgspec.Struct)

FORM = "application/x-www-form-urlencoded"
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
NOT_BRACKETS = re.compile(rb"[^\[\]{}]+")


class Exchange:
    """A request on its way to its one answer.

    Attributes:
        headers: of the request, names in lower case.
        deadline_s: latest moment of the answer, on the loop's clock.
        model: name of the model it is about, for metrics.
        status: of the answer, once it has begun; 0 before.
        is_gone: whether the client went away.
    """

    __slots__ = (
        "_watcher",
        "arrived_at_s",
        "deadline_s",
        "gateway",
        "headers",
        "is_gone",
        "model",
        "receive",
        "scope",
        "send",
        "status",
    )

    def __init__(self, gateway: Gateway, scope: Any, receive: Receive, send: Send) -> None:
        self.gateway, self.scope, self.receive, self.send = gateway, scope, receive, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.arrived_at_s = asyncio.get_running_loop().time()
        self.deadline_s = self.arrived_at_s + gateway.settings.limits.request_timeout_s
        self.model, self.status, self.is_gone = "", 0, False
        self._watcher: asyncio.Task[None] | None = None

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
        """The whole body.

        Raises: Refusal 411 without a length, 413 when too large, 408 when it is not here by the deadline.
        """
        limit = self.gateway.settings.limits.body_bytes
        length = self.headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in self.headers:
            raise Refusal(
                411, "there is no body", where="Content-Length", remedy="send a JSON object, `{}` at least"
            )
        if length is not None and int(length) > limit:
            raise too_large(int(length), limit)
        try:
            async with asyncio.timeout_at(self.deadline_s):
                return await self._read(limit)
        except TimeoutError as error:
            close = [(b"connection", b"close")]
            raise Refusal(408, "the body did not come in time", where="body", headers=close) from error

    async def _read(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.is_gone = True
                raise asyncio.CancelledError
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise too_large(size, limit)
            if not message.get("more_body", False):
                return part if not parts else b"".join([*parts, part])
            parts.append(part)

    async def json(self, kind: type[T]) -> T:
        """The body as a `kind`.

        Raises: InputError that names the field, and everything `body` and `content_type` raise.
        """
        self.content_type((JSON,))
        return parse(await self.body(), kind, self.gateway.settings.limits.json_depth)

    def watch(self, gone: Callable[[], object]) -> None:
        """Call `gone` if the client goes away before the answer is complete."""

        async def wait() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            if not self.is_gone:
                self.is_gone = True
                gone()

        self._watcher = asyncio.get_running_loop().create_task(wait())

    def unwatch(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def begin(self, status: int, content_type: str, headers: Headers) -> None:
        """Send status and headers."""
        self.status = status
        extra = [(b"connection", b"close")] if self.gateway.is_draining else []
        start = [(b"content-type", content_type.encode()), *headers, *extra]
        await self.send({"type": "http.response.start", "status": status, "headers": start})

    async def answer(self, status: int, body: bytes, content_type: str, headers: Headers) -> None:
        """Send the whole answer."""
        await self.begin(status, content_type, [(b"content-length", b"%d" % len(body)), *headers])
        await self.send({"type": "http.response.body", "body": body})

    async def piece(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of an answer that has begun; waits while the client's buffer is full."""
        await self.send({"type": "http.response.body", "body": body, "more_body": more})


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
