"""The workers of other machines as a pool: what a gateway needs of one, through RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from triptych.errors import DeadlineExceeded
from triptych.serve.catalog import Catalog
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
    """Sends what is asked to a queue of its model in the version of `catalog`; see `generation.Pool`."""

    def __init__(self, fleet: RemoteFleet, catalog: Catalog) -> None:
        self._fleet, self._catalog = fleet, catalog
        self._decode = msgspec.msgpack.Decoder(AnyWork).decode
        self._ids = count(1)
        self._answered_at_s: dict[str, float] = {}

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """One answer per payload; all are of one model.

        Raises: WorkerDied, Poison, DeadlineExceeded, Draining; Overloaded if no worker is there;
            BrokerUnavailable if RabbitMQ is away, or takes nothing.
        """
        model = self._decode(payloads[0]).model
        request = BatchRequest()
        queue = self._fleet.names.batches(model, self._catalog[model].version)
        self._fleet.send(queue, msgspec.msgpack.encode(payloads), deadline_s, request)
        try:
            answers = await request.answers
        finally:
            request.end()
        self._answered_at_s[model] = time.monotonic()
        return answers

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """The pieces of one text, whoever makes them.

        Raises: Draining; Overloaded if no worker is there; while iterating what `run` raises.
        """
        model = self._decode(payload).model
        stream = PieceStream(next(self._ids), payload, buffer=BUFFER, on_end=lambda _: request.end())
        request = TextRequest(stream)
        queue = self._fleet.names.texts(model, self._catalog[model].version)
        self._fleet.send(queue, payload, deadline_s, request)
        if deadline_s is not None:
            late = DeadlineExceeded("the stream's deadline passed", where="gateway")
            stream.timer = asyncio.get_running_loop().call_at(deadline_s, stream.end, late)
        return stream

    async def idle(self) -> None:
        """Return once workers have room for a batch, or none is there."""
        await self._fleet.idle()

    async def probe(self, payloads: list[bytes], *, timeout_s: float = 1.0) -> dict[int, str]:
        """What came back through RabbitMQ for each model, numbered as they are: `ok`, `failed` or `late`.

        A model that answered a request just now is not asked. All are `late` unless each one answered:
        a gateway is ready for all of its models, or not at all.
        """
        states = await asyncio.gather(*(self._probe(payload, timeout_s) for payload in payloads))
        is_ready = all(state == "ok" for state in states)
        return {number: state if is_ready or state != "ok" else "late" for number, state in enumerate(states)}

    def workers(self) -> list[WorkerInfo]:
        """The processes of all machines."""
        return self._fleet.workers()

    async def _probe(self, payload: bytes, timeout_s: float) -> str:
        model = self._decode(payload).model
        if time.monotonic() - self._answered_at_s.get(model, -FRESH_S) < FRESH_S:
            return "ok"
        try:
            deadline_s = asyncio.get_running_loop().time() + timeout_s
            async with asyncio.timeout_at(deadline_s):
                answers = await self.run([payload], deadline_s=deadline_s)
        except TimeoutError:
            return "late"
        except Exception:
            return "failed"
        return "failed" if any(isinstance(answer, Failure) for answer in answers) else "ok"
