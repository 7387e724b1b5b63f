"""What a gateway has asked of the workers, and what has come of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiormq.abc import DeliveredMessage

from triptych.errors import Poison, ServeError, WorkerDied
from triptych.serve.remote.protocol import ANSWERS, FAILED, LOST, PART, PARTS, PIECES, Pieces
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.stream import PieceStream

MAX_TRIES = 3  # of a text; a batch that workers were lost with is tried again by the pipeline
LOST_WITH = "workers were lost while they held it"


class Request:
    """Base of the two kinds.

    Args:
        queue, body: what is sent, and where.
        deadline_s: on the monotonic clock; None if it has none.

    Attributes:
        id: what tells it from the gateway's others.
        sendings: how often it was sent.
        again: called to send it once more.
        worker: the private queue of the worker that is at it, if it has to be told when nobody waits.
        ended: done once nothing more is waited for.
    """

    is_batch = True

    def __init__(self, queue: str, body: bytes, deadline_s: float | None) -> None:
        self.queue, self.body, self.deadline_s = queue, body, deadline_s
        self.id = self.worker = ""
        self.sendings = 0
        self.again: Callable[[], object] = lambda: None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def correlation_id(self) -> str:
        """What its last sending is known by."""
        return f"{self.id}/{self.sendings}"

    def left_ms(self) -> int:
        """Time until its deadline; an hour if it has none."""
        if self.deadline_s is None:
            return 3_600_000
        return max(0, int((self.deadline_s - time.monotonic()) * 1000))

    def answer(self, message: DeliveredMessage) -> None:
        """Take what a worker answered.

        Raises: msgspec.DecodeError, ValueError when it cannot be read.
        """
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End it without an answer."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing more is waited for."""
        if not self.ended.done():
            self.ended.set_result(None)


class BatchRequest(Request):
    """A batch of `size` payloads: one message; the first answer to come counts."""

    def __init__(self, queue: str, body: bytes, deadline_s: float | None, size: int) -> None:
        super().__init__(queue, body, deadline_s)
        self.answers: asyncio.Future[list[bytes | Failure]] = asyncio.get_running_loop().create_future()
        self.answers.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits
        self._size = size
        self._parts: dict[int, bytes] = {}

    def answer(self, message: DeliveredMessage) -> None:
        """Take the answers, or a part of them, or why there are none."""
        kind = message.header.properties.message_type
        if kind == LOST:
            self.fail(WorkerDied(f"{message.body.decode()} {LOST_WITH}", where="worker"))
        elif kind == FAILED:
            self.fail(msgspec.msgpack.decode(message.body, type=Failure).to_error())
        elif kind == ANSWERS and (body := self._whole(message)) is not None:
            answers = msgspec.msgpack.decode(body, type=list[bytes | Failure])
            if len(answers) != self._size:
                raise ValueError(f"{len(answers)} answers to {self._size} payloads")
            if not self.answers.done():
                self.answers.set_result(answers)
            self.end()

    def fail(self, error: BaseException) -> None:
        """End it without an answer."""
        if not self.answers.done():
            self.answers.set_exception(error)
        self.end()

    def _whole(self, message: DeliveredMessage) -> bytes | None:
        """All parts, once they are here; two workers' parts are the same bytes."""
        headers = message.header.properties.headers or {}
        parts = int(str(headers.get(PARTS, 1)))
        if parts == 1:
            return message.body
        self._parts[int(str(headers[PART]))] = message.body
        return b"".join(self._parts[number] for number in range(parts)) if len(self._parts) == parts else None


class TextRequest(Request):
    """A text: pieces with numbers, from one worker or, after a loss, from several that make the same ones."""

    is_batch = False

    def __init__(self, queue: str, body: bytes, deadline_s: float | None, stream: PieceStream) -> None:
        super().__init__(queue, body, deadline_s)
        self.stream, self._received = stream, 0
        self._received_when_lost = self._in_vain = 0

    def answer(self, message: DeliveredMessage) -> None:
        """Take the pieces that are new."""
        properties = message.header.properties
        if properties.message_type == LOST:
            self._on_lost(message.body.decode())
        elif properties.message_type == PIECES:
            told = msgspec.msgpack.decode(message.body, type=Pieces)
            is_latest = properties.correlation_id == self.correlation_id
            if is_latest:
                self.worker = "" if told.done else properties.reply_to or ""
            self._take(told)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.stream.end(error)

    def _take(self, told: Pieces) -> None:
        for piece in told.pieces[self._received - told.start :] if told.start <= self._received else ():
            self._received += 1
            self.stream.put(piece)
        if told.failure is not None:
            self.fail(told.failure.to_error())
        elif told.done and told.start + len(told.pieces) <= self._received:
            self.stream.end()

    def _on_lost(self, count: str) -> None:
        """Workers were lost with it. One that gets on meanwhile is no poison."""
        self._in_vain = 1 + (self._in_vain if self._received == self._received_when_lost else 0)
        self._received_when_lost = self._received
        if self._in_vain < MAX_TRIES:
            self.again()
        else:
            self.fail(Poison(f"{MAX_TRIES} times {count} {LOST_WITH}, and it got no further", where="worker"))


def unreadable(error: Exception) -> ServeError:
    """The error of an answer that cannot be read."""
    return ServeError(f"a worker's answer cannot be read ({type(error).__name__})", where="gateway")
