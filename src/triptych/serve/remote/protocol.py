"""What gateways and workers tell each other through RabbitMQ.

::

    gateway                        RabbitMQ                                      workers, any number
    RemotePool ── batch ────────▶  PREFIX.direct.MODEL.VERSION.batches (quorum) ──▶ WorkerService
               ── text ─────────▶  PREFIX.direct.MODEL.VERSION.texts (quorum) ────▶     │
        ▲      ── cancel ───────▶  PREFIX.direct.worker.ID  (private) ────────────▶     │
        ├───── answer, pieces ───  PREFIX.direct.gateway.ID (private) ◀─────────────────┤
        └───── Announcement ─────  PREFIX.direct.workers (fanout) ◀──── every second ───┘

A worker acknowledges work once RabbitMQ has its whole answer, so that what a lost worker held is handed to
another. What is computed twice is the same bytes: the first answer counts, a text goes on where it was.
"""

from __future__ import annotations

import msgspec
from pamqp.common import FieldTable

from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.options import RabbitOptions
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.pool import WorkerInfo

TRANSIENT, PERSISTENT = 1, 2
BATCH, TEXT, CANCEL = "batch", "text", "cancel"  # to workers
ANSWERS, FAILED, PIECES = "answers", "failed", "pieces"  # to gateways
TIMEOUT, DELIVERIES = "timeout_ms", "x-delivery-count"
ANNOUNCE_S, GONE_S = 1.0, 10.0
MAX_LOST = 2  # machines that may be lost with a piece of work in their hands
QUORUM: FieldTable = {"x-queue-type": "quorum"}
OPTIONS = RabbitOptions(heartbeat_s=4, check_s=3.0, longest_backoff_s=4.0, connect_timeout_s=5.0)


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """A bundle a worker has loaded: the bytes of its manifest, and when they were written."""

    manifest: bytes
    created_at_s: int


class Announcement(msgspec.Struct, frozen=True, array_like=True):
    """What a worker is: who, since when (by the wall clock), what it offers, and its processes."""

    id: str
    started_at_s: float
    offers: list[Offer]
    processes: list[WorkerInfo]
    leaving: bool = False


class Pieces(msgspec.Struct, frozen=True, array_like=True):
    """Pieces of a text, from number `start` on; `done` with the last, and `failure` if it was no good end."""

    start: int
    pieces: list[bytes]
    done: bool = False
    failure: Failure | None = None


class Names:
    """What exchanges and queues are called."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{prefix}.direct"
        self.workers = f"{self._base}.workers"

    def batches(self, model: str, version: str) -> str:
        """Where the batches of a model wait."""
        return f"{self._base}.{model}.{version}.batches"

    def texts(self, model: str, version: str) -> str:
        """Where the texts of a model wait."""
        return f"{self._base}.{model}.{version}.texts"

    def gateway(self, id: str) -> str:
        """Where the answers for a gateway arrive."""
        return f"{self._base}.gateway.{id}"

    def worker(self, id: str) -> str:
        """Where a worker is told what nobody waits for any more."""
        return f"{self._base}.worker.{id}"


async def declare_work(connection: AmqpConnection, names: Names, models: dict[str, str]) -> None:
    """The queues of models, given as name -> version."""
    for model, version in models.items():
        await connection.declare_queue(names.batches(model, version), QUORUM)
        await connection.declare_queue(names.texts(model, version), QUORUM)
