"""A stream of pieces that outlives the workers that make it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from triptych.errors import Overloaded


class PieceStream:
    """The pieces of one stream's answer, for `async for`; close it (`contextlib.aclosing`) if you stop early.

    Attributes:
        slots: how many slots of a worker it takes: one, or all once it is suspected of killing workers.
        strikes: workers that died under it since its last new piece.
        replayed: whether it was started again.
        timer: what ends it at its deadline.
    """

    def __init__(
        self, id: int, payload: bytes, *, buffer: int, on_end: Callable[[PieceStream], None]
    ) -> None:
        self.id, self.payload = id, payload
        self.slots, self.strikes, self.replayed = 1, 0, False
        self._buffer, self._on_end = buffer, on_end
        self._pieces: deque[bytes] = deque()
        self._received = 0  # pieces ever put into `_pieces`
        self._skip = 0  # pieces of the present run that were received in an earlier one
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        """Whether no more pieces will come."""
        return self._ended

    def put(self, piece: bytes) -> None:
        """Take a piece from the worker; a reader too far behind ends the stream."""
        if self._skip:
            self._skip -= 1
            return
        if len(self._pieces) >= self._buffer:
            self.end(Overloaded(f"the reader is {self._buffer} pieces behind", where="stream"))
            return
        self._pieces.append(piece)
        self._received += 1
        self.strikes = 0
        self._wake()

    def restart(self) -> None:
        """The worker is gone: the pieces received so far will come again and are to be skipped."""
        self._skip, self.replayed = self._received, True

    def end(self, error: BaseException | None = None) -> None:
        """No more pieces; the reader gets those that wait, then `error`."""
        if not self._ended:
            self._ended, self._error = True, error
            if self.timer is not None:
                self.timer.cancel()
            self._wake()
            self._on_end(self)

    def __aiter__(self) -> PieceStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._ended:
                if self._error is None:
                    raise StopAsyncIteration
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._pieces.popleft()

    async def aclose(self) -> None:
        """End the stream; its worker forgets it within one step."""
        self._pieces.clear()
        self.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
