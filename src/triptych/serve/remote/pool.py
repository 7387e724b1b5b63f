"""The workers of other machines as a pool: what a gateway needs of one, through RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from triptych.errors import DeadlineExceeded
from triptych.serve.remote.protocol import MESSAGE_BYTES
from triptych.serve.remote.request import BatchRequest, TextRequest
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.pool import WorkerInfo
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.work import AnyWork

if TYPE_CHECKING:
    from triptych.serve.remote.fleet import RemoteFleet

BUFFER = 4096
FRESH_S = 2.0  # an answer of this age proves as much as a canary


class RemotePool:
    """Sends what is asked to a queue of its model, in one version and way; see `generation.Pool`.

    Args:
        keys: by its name, the name, version and way of each model.
    """

    def __init__(self, fleet: RemoteFleet, keys: dict[str, tuple[str, str, str]]) -> None:
        self._fleet, self.keys = fleet, keys
        self._decode = msgspec.msgpack.Decoder(AnyWork).decode
        self._ids = count(1)
        self._answered_at_s: dict[str, float] = {}

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """One answer per payload; all are of one model.

        Raises: WorkerDied, DeadlineExceeded, Draining; BrokerUnavailable if RabbitMQ takes nothing.
        """
        model = self._decode(payloads[0]).model
        queue = self._fleet.names.batches(*self.keys[model])
        parts = list(in_parts(payloads))
        requests = [
            BatchRequest(queue, msgspec.msgpack.encode(part), deadline_s, len(part)) for part in parts
        ]
        try:
            for request in requests:
                self._fleet.send(request)
            answers = [answer for request in requests for answer in await request.answers]
        finally:
            for request in requests:
                request.end()
                request.answers.cancel()
        self._answered_at_s[model] = time.monotonic()
        return answers

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """The pieces of one text, whoever makes them.

        Raises: Draining; Overloaded if too many are open; while iterating Poison, and what `run` raises.
        """
        model = self._decode(payload).model
        stream = PieceStream(next(self._ids), payload, buffer=BUFFER, on_end=lambda _: request.end())
        request = TextRequest(self._fleet.names.texts(*self.keys[model]), payload, deadline_s, stream)
        self._fleet.send(request)
        return stream

    async def idle(self) -> None:
        """Return once workers have room for a batch, or none is there."""
        await self._fleet.idle()

    async def probe(self, payloads: list[bytes], *, timeout_s: float = 1.0) -> dict[int, str]:
        """What came back for each model, numbered as they are: `ok`, `failed` or `late`; `gone`
        if no worker has it.

        A model that answered a request just now is not asked.
        """
        states = await asyncio.gather(*(self._probe(payload, timeout_s) for payload in payloads))
        return dict(enumerate(states))

    def workers(self) -> list[WorkerInfo]:
        """The processes of all machines."""
        return self._fleet.workers()

    async def _probe(self, payload: bytes, timeout_s: float) -> str:
        model = self._decode(payload).model
        if not self._fleet.machines.have(model):
            return "gone"
        if time.monotonic() - self._answered_at_s.get(model, -FRESH_S) < FRESH_S:
            return "ok"
        try:
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(deadline_s):
                answers = await self.run([payload], deadline_s=deadline_s)
        except (TimeoutError, DeadlineExceeded):
            return "late"
        except Exception:
            return "failed"
        return "failed" if any(isinstance(answer, Failure) for answer in answers) else "ok"


def in_parts(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Payloads in the fewest messages of at most `MESSAGE_BYTES` each, or of one payload."""
    part: list[bytes] = []
    size_bytes = 0
    for payload in payloads:
        if part and size_bytes + len(payload) > MESSAGE_BYTES:
            yield part
            part, size_bytes = [], 0
        part.append(payload)
        size_bytes += len(payload)
    yield part
