"""What a worker does with one message: a batch, or a text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec
from aiormq.abc import DeliveredMessage

from triptych.errors import Draining, SupervisorFailed
from triptych.serve.brokers.amqp_link import RecipientGone
from triptych.serve.generation import Pool
from triptych.serve.remote.protocol import (
    ANSWERS,
    DELIVERIES,
    FAILED,
    MESSAGE_BYTES,
    PART,
    PARTS,
    PIECES,
    TIMEOUT,
    Pieces,
)
from triptych.serve.supervise.failure import Failure

NOT_HERE = (Draining, SupervisorFailed)  # this machine is on its way down, another may do it

encode = msgspec.msgpack.Encoder().encode


class Reply(Protocol):
    """Sends an answer to who asked."""

    def __call__(
        self, work: Task, kind: str, body: bytes, part: Mapping[str, int] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Return once RabbitMQ has it."""


class Task:
    """Base of the two kinds.

    Attributes:
        id, reply_to, tag: of the message.
        lost: workers that were lost while they held it.
    """

    def __init__(self, message: DeliveredMessage, pool: Pool, reply: Reply) -> None:
        properties = message.header.properties
        assert message.delivery_tag is not None
        self.id, self.reply_to = properties.correlation_id or "", properties.reply_to or ""
        self.tag, self._body = message.delivery_tag, message.body
        self._pool, self._reply = pool, reply
        headers = properties.headers or {}
        self.lost = number(headers.get(DELIVERIES), 0)
        self._deadline_s = asyncio.get_running_loop().time() + number(headers.get(TIMEOUT), 60_000) / 1000

    def left_s(self) -> float:
        """Until its deadline."""
        return max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Do it, and answer.

        Raises: RecipientGone if who asked is gone; Draining, SupervisorFailed if it cannot be done here.
        """
        raise NotImplementedError


class BatchTask(Task):
    """One message, one answer; a long one in parts."""

    async def run(self) -> None:
        """See `Task`."""
        try:
            payloads = msgspec.msgpack.decode(self._body, type=list[bytes])
            answers = await self._pool.run(payloads, deadline_s=self._deadline_s)
        except NOT_HERE:
            raise
        except Exception as error:
            await self._reply(self, FAILED, encode(Failure.of(error)))
            return
        body = encode(answers)
        parts = [body[start : start + MESSAGE_BYTES] for start in range(0, len(body), MESSAGE_BYTES)]
        for place, part in enumerate(parts):
            await self._reply(self, ANSWERS, part, {PART: place, PARTS: len(parts)})


class TextTask(Task):
    """One message, many answers: the pieces as they are made."""

    async def run(self) -> None:
        """See `Task`."""
        sender = PieceSender(partial(self._reply, self, PIECES))
        try:
            stream = self._pool.stream(self._body, deadline_s=self._deadline_s)
            try:
                async for piece in stream:
                    sender.put(piece)
            finally:
                await stream.aclose()
            await sender.end()
        except (*NOT_HERE, RecipientGone):
            raise
        except Exception as error:
            await sender.end(Failure.of(error))
        finally:
            sender.cancel()


class PieceSender:
    """Sends pieces in order, those that came while the last message was on its way together."""

    def __init__(self, send: Callable[[bytes], Coroutine[Any, Any, None]]) -> None:
        self._send = send
        self._sent, self._waiting = 0, list[bytes]()
        self._sending: asyncio.Task[None] | None = None

    def put(self, piece: bytes) -> None:
        """Take a piece.

        Raises: what sending the ones before it raised.
        """
        self._waiting.append(piece)
        if self._sending is not None and self._sending.done():
            self._sending.result()
            self._sending = None
        if self._sending is None:
            self._sending = asyncio.create_task(self._flush())

    async def end(self, failure: Failure | None = None) -> None:
        """Send the rest, and that it was the last."""
        if self._sending is not None:
            await self._sending
        await self._send(encode(Pieces(self._sent, self._waiting, done=True, failure=failure)))

    def cancel(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _flush(self) -> None:
        while self._waiting:
            pieces, self._waiting = self._waiting, []
            await self._send(encode(Pieces(self._sent, pieces)))
            self._sent += len(pieces)


def number(value: object, default: int) -> int:
    """A header that should be a number; one that is none is as good as none."""
    return value if isinstance(value, int) else default
