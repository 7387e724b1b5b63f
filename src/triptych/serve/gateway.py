"""The gateway: requests go in as work, answers come out, and every wait in between has one deadline.

One-shot work goes through the pipeline, which batches it; texts go straight to the pool, whose workers
decode many at once and let them join and leave between token steps.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import cast

import msgspec

from triptych.errors import ConflictError, Overloaded
from triptych.serve.brokers.broker import Intake
from triptych.serve.catalog import Catalog
from triptych.serve.generation import Generation, Pool
from triptych.serve.http.request_body import Room
from triptych.serve.logs import log_trouble
from triptych.serve.metrics import Metrics
from triptych.serve.pipeline.handler import BatchInfo, Handler
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import (
    BatcherOptions,
    PipelineOptions,
    ProcessorsOptions,
    ProducerOptions,
)
from triptych.serve.pipeline.pace import Pace
from triptych.serve.pipeline.pipeline import Pipeline
from triptych.serve.pipeline.producer import QueueProducer
from triptych.serve.settings import Settings
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.ticket import ACKNOWLEDGER, Deadlines, Outcome, Ticket
from triptych.serve.work import ProbeWork, TextPiece, TextWork, Work

PROBE_S = 1.0
SPARE = 0.2  # the share of the time to a deadline that no wait is planned into: paces vary


class Dispatch(Handler):
    """Hands each batch to an idle worker of the generation that accepted it.

    Args:
        present: tells the generation that accepts now.
        pace: told of what was done.
    """

    def __init__(self, present: Callable[[], Generation], metrics: Metrics, pace: Pace) -> None:
        self._present, self._metrics, self._pace = present, metrics, pace

    async def capacity(self, batcher: str) -> None:
        """Wait for an idle worker, so that the batch can still fill."""
        await self._present().pool.idle()

    async def handle_batch(self, batcher: str, messages: Sequence[Message], info: BatchInfo) -> None:
        """Have a worker answer `messages`."""
        metrics, started_at_s = self._metrics, asyncio.get_running_loop().time()
        metrics.batch_rows.observe(info.rows)
        metrics.batch_emitted.labels(info.reason).inc()
        for message in messages:
            metrics.queued(started_at_s - message.ack_ref.accepted_at_s)
            if message.deliveries > 1:
                metrics.redelivered.inc()
        deadlines = [message.deadline_s for message in messages if message.deadline_s is not None]
        generation, _ = cast(tuple[Generation, Hashable], messages[0].batch_key)
        answers = await generation.pool.run(
            [message.data for message in messages], deadline_s=max(deadlines, default=None)
        )
        self._pace.note()
        metrics.compute_duration.observe(asyncio.get_running_loop().time() - started_at_s)
        for message, answer in zip(messages, answers, strict=True):
            if isinstance(answer, Failure):
                message.failed(answer)
            else:
                message.put_result(answer)


class TextStream:
    """The pieces of a text as they are made; those of an echoed prompt come to the gateway together."""

    def __init__(self, pieces: PieceStream, decode: Callable[[bytes], list[TextPiece]]) -> None:
        self._pieces, self._decode = pieces, decode
        self._here = deque[TextPiece]()

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> TextPiece:
        while not self._here:
            self._here.extend(self._decode(await anext(self._pieces)))
        return self._here.popleft()

    async def aclose(self) -> None:
        """Stop it within a token, also if nobody has read a piece yet."""
        self._here.clear()
        await self._pieces.aclose()


class Gateway:
    """What the routes, and the runner of jobs, call.

    Attributes:
        generation: the models and workers that accept requests now.
        settings, metrics: what they are named.
        swap: begins the next generation, or raises ConflictError and changes nothing.
        pipeline: the child to supervise.
        jobs: where jobs go in, once that is open.
        bodies: what the bodies of all requests take.
        is_draining: set once the server is on its way down.
        started_at_s: on the monotonic clock.
    """

    def __init__(
        self, generation: Generation, settings: Settings, metrics: Metrics, workers: int = 1
    ) -> None:
        self.generation, self.settings, self.metrics = generation, settings, metrics
        self.swap: Callable[[], Awaitable[None]] = cannot_swap
        self.jobs: Intake | None = None
        self.bodies = Room(settings.limits.bodies_bytes)
        self.is_draining = False
        self.started_at_s = time.monotonic()
        queue = settings.queue
        self._producer = QueueProducer(ProducerOptions(capacity=queue.capacity))
        batcher = BatcherOptions(
            concurrency=workers,
            batch_size=queue.batch_size,
            batch_timeout_s=max(queue.batch_timeout_s, 1e-6),
            max_demand=2 * queue.batch_size,  # what waits beyond that waits in the queue, where it is counted
        )
        options = PipelineOptions(
            processors=ProcessorsOptions(max_demand=queue.batch_size),
            batchers={"default": batcher},
            shutdown_s=settings.drain.shutdown_s,
            max_deliveries=queue.max_deliveries,
        )
        self._accepted = 0
        self._pace = Pace(lambda: self._accepted - self.generation.open, lambda: len(self._producer) > 0)
        dispatch = Dispatch(lambda: self.generation, metrics, self._pace)
        self.pipeline = Pipeline(dispatch, self._producer, options, on_event=log_trouble)
        self._deadlines = Deadlines()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode_piece = msgspec.msgpack.Decoder(list[TextPiece]).decode
        self._probe: asyncio.Task[dict[int, str]] | None = None
        metrics.watch_queue(lambda: self.queue_depth, lambda: self.wait_s)

    @property
    def catalog(self) -> Catalog:
        """The models on offer."""
        return self.generation.catalog

    @property
    def pool(self) -> Pool:
        """The workers that have loaded them."""
        return self.generation.pool

    @property
    def queue_depth(self) -> int:
        """Requests waiting for a batch."""
        return len(self._producer)

    @property
    def wait_s(self) -> float:
        """Seconds until a request that came now would be answered, at the pace measured while others waited;
        0 while none has waited yet.
        """
        return self._pace.wait_s(self.generation.open + 1)

    def overload(self, deadline_s: float) -> Overloaded | None:
        """Why a request of that deadline is to be refused before anything is done for it; None if it is not.

        It is as long as every worker is busy, the pipeline is full, and the queue behind it too long: by
        count, or for `queue.max_wait_s`, or for the deadline.
        """
        producer = self._producer
        if not producer.is_backed_up:
            return None
        wait_s, left_s = self.wait_s, deadline_s - time.monotonic()
        if producer.is_full or wait_s > min(self.settings.queue.max_wait_s, left_s * (1 - SPARE)):
            return Overloaded.of_queue(wait_s)
        return None

    def submit(
        self, work: Work, *, rows: int, key: Hashable, deadline_s: float, done: Callable[[Outcome], None]
    ) -> Ticket:
        """Queue work for a batch of its `key`; `done` is called once, with its answer or error.

        Raises: Overloaded, Draining or DeadlineExceeded at once.
        """
        generation = self.generation
        ticket = Ticket(done, deadline_s, self._deadlines, generation.leave)
        ticket.message = Message(
            self._encode(work), ACKNOWLEDGER, ticket, rows, deadline_s, batch_key=generation.key(key)
        )
        self._producer.offer(ticket.message)
        generation.enter()
        self._accepted += 1
        self._deadlines.add(ticket)
        return ticket

    def stream(self, work: TextWork, *, deadline_s: float) -> TextStream:
        """Have a text made by the generation of this moment; closing what is returned stops it in a token.

        Raises: Overloaded or Draining at once.
        """
        pieces = self.pool.stream(self._encode(work), deadline_s=deadline_s)
        return TextStream(pieces, self._decode_piece)

    def is_ready(self, probed: dict[int, str]) -> bool:
        """Whether requests will be answered: one worker that did its batch in `probe` is enough."""
        return "ok" in probed.values() and not self.is_draining

    async def probe(self) -> dict[int, str]:
        """What became of a real batch of every model in each worker just now, within a second, by slot."""
        if self._probe is None or self._probe.done():
            payloads = [self._encode(ProbeWork(name)) for name in self.catalog]
            self._probe = asyncio.create_task(self.pool.probe(payloads, timeout_s=PROBE_S))
        return await asyncio.shield(self._probe)


async def cannot_swap() -> None:
    """The swap of a gateway whose workers are not its own."""
    raise ConflictError("the workers of this gateway are not its own", where="swap")
