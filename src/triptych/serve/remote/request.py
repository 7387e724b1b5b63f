"""What a gateway has asked of the workers, and what has come of it."""

from __future__ import annotations

import asyncio
import time

import msgspec

from triptych.serve.remote.protocol import ANSWERS, FAILED, PIECES, Pieces
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.stream import PieceStream


class Request:
    """Base of the two kinds.

    Attributes:
        id, queue, body, deadline_s: what is sent, and where; set when it is.
        is_sent: whether it may have reached the broker.
        is_batch: whether it takes the room of a batch.
        worker: the private queue of the worker that is at it, if it has to be told when nobody waits.
        ended: done once nothing more is waited for.
    """

    is_batch = True

    def __init__(self) -> None:
        self.id = self.queue = self.worker = ""
        self.body, self.is_sent = b"", False
        self.deadline_s: float | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def left_ms(self) -> int:
        """Time until its deadline; an hour if it has none."""
        return (
            3_600_000 if self.deadline_s is None else max(0, int((self.deadline_s - time.monotonic()) * 1000))
        )

    def answer(self, kind: str, body: bytes, worker: str) -> None:
        """Take what a worker answered."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End it without an answer."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing more is waited for."""
        if not self.ended.done():
            self.ended.set_result(None)


class BatchRequest(Request):
    """A batch: one message, one answer; the first counts."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: asyncio.Future[list[bytes | Failure]] = asyncio.get_running_loop().create_future()

    def answer(self, kind: str, body: bytes, worker: str) -> None:
        """Take the answers, or why there are none."""
        if kind == FAILED:
            self.fail(msgspec.msgpack.decode(body, type=Failure).to_error())
        elif kind == ANSWERS:
            if not self.answers.done():
                self.answers.set_result(msgspec.msgpack.decode(body, type=list[bytes | Failure]))
            self.end()

    def fail(self, error: BaseException) -> None:
        """End it without an answer."""
        if not self.answers.done():
            self.answers.set_exception(error)
        self.end()


class TextRequest(Request):
    """A text: pieces with numbers, from one worker or, after a loss, from several that make the same ones."""

    is_batch = False

    def __init__(self, stream: PieceStream) -> None:
        super().__init__()
        self.stream, self._received = stream, 0

    def answer(self, kind: str, body: bytes, worker: str) -> None:
        """Take the pieces that are new."""
        told = msgspec.msgpack.decode(body, type=Pieces)
        if kind != PIECES:
            return
        self.worker = "" if told.done else worker
        for piece in told.pieces[self._received - told.start :] if told.start <= self._received else ():
            self._received += 1
            self.stream.put(piece)
        if told.failure is not None:
            self.fail(told.failure.to_error())
        elif told.done and told.start + len(told.pieces) <= self._received:
            self.stream.end()

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.stream.end(error)
