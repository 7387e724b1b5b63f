"""One call as an exchange: routes, limits, counts and errors are those of HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from triptych.serve.gateway import Gateway
from triptych.serve.http.exchange import Exchange, Nobody
from triptych.serve.http.kserve import LENGTH
from triptych.serve.http.refusal import Headers
from triptych.serve.ticket import RESOLUTION_S

TAKEN = ("authorization", "x-request-id")  # what of a call's metadata HTTP knows as headers
GIVEN = (b"retry-after", b"triptych-")  # what of an answer's headers begins like that is metadata
NEAR_S = 0.1  # a client that gives up so shortly before its deadline does so because of that
Metadata = list[tuple[str, str]]


class Answer(NamedTuple):
    """What a route answered.

    Attributes:
        status: as HTTP has it.
        body: its JSON.
        values: what followed that.
        metadata: of the call's end.
    """

    status: int
    body: Any
    values: bytes
    metadata: Metadata

    @property
    def error(self) -> str:
        """What went wrong, in the words of HTTP; empty if nothing did."""
        error = self.body.get("error", "") if isinstance(self.body, dict) else ""
        return error if isinstance(error, str) else str(error["message"])


class Call(Exchange):
    """A request whose answer goes into `answered`.

    Args:
        message: what came, which takes its part of `limits.bodies_bytes` from now on.
        content: makes the body: JSON, and raw values behind it. Called when the body is wanted, not before.
        context: the call, of `grpc.aio`.
    """

    __slots__ = ("_content", "answered")

    def __init__(
        self,
        gateway: Gateway,
        method: str,
        path: str,
        message: bytes,
        content: Callable[[], tuple[bytes, bytes]],
        context: Any,
    ) -> None:
        headers = {b"content-length": b"%d" % len(message)}
        headers |= {
            name.encode(): value.encode()
            for name, value in context.invocation_metadata() or ()
            if name in TAKEN
        }
        left_s = context.time_remaining()
        if left_s is not None:
            headers[b"request-timeout"] = b"%f" % max(left_s, RESOLUTION_S)
        super().__init__(gateway, Nobody(), method, path, headers)
        self.feed(message)
        self.feed_end()
        self._content = content
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def whole_body(self) -> bytes:
        """The request in the form it has over HTTP; from now on that is what counts, not the message.

        Raises: Refusal 413 when that is too large, 503 when there is no room for it; InputError if it cannot
            be had.
        """
        self._body.check_length()
        if LENGTH not in self.headers:
            head, values = self._content()
            self.headers[LENGTH] = b"%d" % len(head)
            self._body.drop()
            self._body.feed(head + values)
        return super().whole_body()

    def reply(self, status: int, body: bytes, content_type: str, headers: Headers) -> None:
        """Keep the answer for the call."""
        if self.status or self.is_gone:
            return
        self.status = status
        if not self.answered.done():
            length = int(dict(headers).get(LENGTH, len(body)))
            metadata = as_metadata([*headers, (b"x-request-id", self.id)])
            self.answered.set_result(
                Answer(status, msgspec.json.decode(body[:length]), body[length:], metadata)
            )
        self._end()

    async def answer_of(self, respond: Callable[[Exchange], None]) -> Answer:
        """What `respond` answers. Cancelled, it frees what is being done for it.

        The client's deadline cancels it too, earlier than it is here by the time the message took. Then the
        gateway's deadline does what is to be done, and counts it as one.
        """
        respond(self)
        try:
            return await self.answered
        except asyncio.CancelledError:
            if time.monotonic() < self.deadline_s - NEAR_S:
                self.leave()
            raise


def as_metadata(headers: Headers) -> Metadata:
    """Headers as the metadata of a call's end, as far as it can carry them; `grpc-retry-pushback-ms` is what
    clients of gRPC that try again by themselves ask for.
    """
    found = [
        (name.decode(), value.decode())
        for name, value in headers
        if name.startswith((*GIVEN, b"x-request-id")) and value.isascii() and value.decode().isprintable()
    ]
    retry_s = dict(found).get("retry-after")
    return found if retry_s is None else [*found, ("grpc-retry-pushback-ms", f"{retry_s}000")]
