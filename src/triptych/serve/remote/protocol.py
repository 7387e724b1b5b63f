"""What gateways and workers tell each other through RabbitMQ.

::

    gateway                        RabbitMQ                                      workers, any number
    RemotePool ── batch ────────▶  PREFIX.direct.MODEL.VERSION.WAY.batches (quorum) ──▶ WorkerService
               ── text ─────────▶  PREFIX.direct.MODEL.VERSION.WAY.texts (quorum) ────▶     │
        ▲      ── cancel ───────▶  PREFIX.direct.worker.ID  (private) ────────────────▶     │
        ├── answers, pieces ─────  PREFIX.direct.gateway.ID (private) ◀─────────────────────┤
        └── Announcement ────────  PREFIX.direct.workers (fanout) ◀──── every second ───────┘

A worker acknowledges work once RabbitMQ has confirmed its whole answer, so that what a lost worker held is
handed to another. What is computed twice is the same bytes, because only workers that compute in the same WAY
share a queue: the first answer counts, a text goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from pamqp.common import FieldTable

from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.options import RabbitOptions
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.pool import WorkerInfo

TRANSIENT, PERSISTENT = 1, 2
CANCEL = "cancel"  # to workers
ANSWERS, FAILED, PIECES, LOST = "answers", "failed", "pieces", "lost"  # to gateways
TIMEOUT, DELIVERIES, PART, PARTS = "timeout_ms", "x-delivery-count", "part", "parts"
ANNOUNCE_S, GONE_S = 1.0, 10.0
MAX_LOST = 2  # work that so many workers (or their connections) were lost with goes back to its gateway
MESSAGE_BYTES = 8 * 2**20  # batches and answers of more go in several messages
MAX_BODY_BYTES = 15 * 2**20  # RabbitMQ 4 takes 16 MiB
QUEUE_EXPIRES_S = 3600.0  # of a version or way that no worker has any more
QUORUM: FieldTable = {"x-queue-type": "quorum", "x-expires": int(QUEUE_EXPIRES_S * 1000)}
OPTIONS = RabbitOptions(
    heartbeat_s=4,
    check_s=3.0,
    publish_timeout_s=8.0,  # longer than it takes to see that a stopped broker answers no canary
    longest_backoff_s=4.0,
    connect_timeout_s=5.0,
)


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """A bundle a worker has loaded.

    Args:
        manifest: the bytes of its manifest.
        created_at_s: when they were written.
        way: the worker's fingerprint of it. Workers of one version and way give the same bytes.
    """

    manifest: bytes
    created_at_s: int
    way: str


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What can be read of any announcement, whatever release of Triptych (`software`) made it."""

    software: str
    id: str


class Announcement(Hello, frozen=True, array_like=True):
    """What a worker is: since when (by the wall clock), what it offers, and its processes."""

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

    def batches(self, model: str, version: str, way: str) -> str:
        """Where the batches of a model wait. Version and way tell models apart: a name may be long."""
        return f"{self._base}.{model[:50]}.{version}.{way}.batches"

    def texts(self, model: str, version: str, way: str) -> str:
        """Where the texts of a model wait."""
        return f"{self._base}.{model[:50]}.{version}.{way}.texts"

    def private(self, kind: str, id: str) -> str:
        """Where a gateway gets answers, or a worker is told what nobody waits for any more."""
        return f"{self._base}.{kind}.{id}"


async def declare_work(connection: AmqpConnection, queues: Iterable[str]) -> None:
    """Make what is not there of the queues of models."""
    for queue in queues:
        await connection.declare_queue(queue, QUORUM)
