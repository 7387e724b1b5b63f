"""The body of a request while it comes in, within its limit."""

from __future__ import annotations

import asyncio

from triptych.serve.http.content_coding import plain
from triptych.serve.http.refusal import CLOSE, Refusal


class Room:
    """What the bodies of all requests may take at a time, together."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.held_bytes = limit_bytes, 0


class RequestBody:
    """Collects the parts of one request's body.

    Args:
        headers: of the request.
        limit_bytes: nothing is kept of a body larger than this.
        room: nothing is kept of a body that would exceed this.

    Attributes:
        is_whole: whether all of it is here.
    """

    __slots__ = (
        "_broken",
        "_bytes",
        "_headers",
        "_held_bytes",
        "_is_plain",
        "_is_too_large",
        "_limit_bytes",
        "_room",
        "_waiter",
        "is_whole",
    )

    def __init__(self, headers: dict[bytes, bytes], limit_bytes: int, room: Room) -> None:
        self.is_whole = False
        self._headers, self._limit_bytes = headers, limit_bytes
        self._room, self._held_bytes = room, 0
        self._bytes: bytes | bytearray = b""
        self._is_too_large = self._is_plain = False
        self._broken: Refusal | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, part: bytes) -> None:
        """The next part."""
        if self._is_too_large or self._broken is not None:
            return
        room = self._room
        room.held_bytes += len(part)
        self._held_bytes += len(part)
        if self._held_bytes > self._limit_bytes:
            self._is_too_large = True
            self.drop()
            self._wake()
        elif room.held_bytes > room.limit_bytes:
            self._find_no_room()
        elif not self._bytes:
            self._bytes = part
        else:
            if isinstance(self._bytes, bytes):
                self._bytes = bytearray(self._bytes)
            self._bytes += part

    def drop(self) -> None:
        """Nobody needs it any more."""
        self._room.held_bytes -= self._held_bytes
        self._bytes, self._held_bytes = b"", 0

    def feed_end(self) -> None:
        """There are no more parts."""
        self.is_whole = True
        self._wake()

    def break_off(self, error: Refusal) -> None:
        """What came is no part of a body: whoever wants it is told so."""
        self._broken = error
        self._wake()

    def cancel(self) -> None:
        """The rest will never come: whoever waits for it is cancelled."""
        if self._waiter is not None:
            self._waiter.cancel()

    def check_length(self) -> None:
        """Raise Refusal: 411 without a length, 413 when too large or by its length, or why it broke off."""
        if self._broken is not None:
            raise self._broken
        length = self._headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in self._headers:
            raise Refusal(
                411, "there is no body", where="Content-Length", remedy="send a JSON object, `{}` at least"
            )
        if self._is_too_large:
            raise too_large(self._limit_bytes + 1, self._limit_bytes)
        if length is not None and int(length) > self._limit_bytes:
            raise too_large(int(length), self._limit_bytes)

    async def wait(self, deadline_s: float) -> None:
        """Return once it is whole, or found too large.

        Raises: Refusal (408) when it is not here by the deadline, on the loop's clock.
        """
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._waiter
        except TimeoutError as error:
            raise Refusal(408, "the body did not come in time", where="body", headers=[CLOSE]) from error

    def whole(self) -> bytes:
        """All of it, once it is whole, uncompressed; from then on that is what it takes.

        Raises: what `check_length` and `plain` raise; Refusal (503) when there is no room for it unpacked.
        """
        self.check_length()
        if not self._is_plain:
            self._keep_plain(plain(bytes(self._bytes), self._headers, self._limit_bytes))
        self.check_length()
        return bytes(self._bytes)

    def _keep_plain(self, found: bytes) -> None:
        """Hold what was unpacked in place of what came."""
        self._room.held_bytes += len(found) - self._held_bytes
        self._bytes, self._held_bytes, self._is_plain = found, len(found), True
        if self._room.held_bytes > self._room.limit_bytes:
            self._find_no_room()

    def _find_no_room(self) -> None:
        self.drop()
        self.break_off(no_room(self._room.limit_bytes))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def no_room(limit_bytes: int) -> Refusal:
    """503: this body is one too many."""
    return Refusal(
        503,
        f"those of all requests take more than {limit_bytes} bytes",
        where="body",
        remedy="try again in a moment",
        headers=[CLOSE],
    )


def too_large(size_bytes: int, limit_bytes: int) -> Refusal:
    """413, and the connection is closed: the rest of the body is not read."""
    return Refusal(
        413,
        f"has {size_bytes} bytes or more",
        where="body",
        valid=f"at most {limit_bytes} bytes",
        headers=[CLOSE],
    )
