"""The seam of the durable lane: what every broker does, whatever it is made of.

It has two ends, `Intake` and `Source`: of an embedded broker in one place, of RabbitMQ on different machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from triptych.serve.brokers.job import BrokerStatistics, Job, Lease, Record


class Source(Protocol):
    """Where jobs are taken from. Whoever has taken one owes it an `ack`, a `nack` or a `reject`."""

    async def take(self, demand: int) -> list[Lease]:
        """At most `demand` jobs and at least one, oldest first; waits for them.

        Never more than the broker's `in_flight` are out at a time. A lease not settled in time goes to
        somebody else, with one more delivery; after `max_deliveries` the job is dead.
        """

    async def ack(self, lease: Lease, result: bytes, *, failed: bool = False) -> bool:
        """End a job with its result (or, if `failed`, the reason); returns once that is safe.

        Returns: whether this was its end; False when the job had ended, or the lease was not his any more.
        """

    async def nack(self, lease: Lease) -> None:
        """Give it back unfinished, for somebody else."""

    async def reject(self, lease: Lease, reason: str) -> None:
        """Give it up: it becomes a dead letter."""

    async def extend(self, lease: Lease) -> bool:
        """Keep it for another full lease; False when it is lost."""

    async def close(self) -> None:
        """Let go. What was taken and not settled goes to somebody else."""


class Intake(Protocol):
    """Where jobs go in, and what became of them comes out."""

    async def publish(self, job: Job) -> str:
        """Keep `job`; returns its id, or that of the first job of its key, once it is safe.

        Raises: ConflictError if that one asked for something else; Overloaded, StorageFull,
            BrokerUnavailable.
        """

    async def get(self, id: str) -> Record:
        """What is known of a job.

        Raises: NotFoundError; StoreDamaged rather than wrong bytes.
        """

    async def cancel(self, id: str) -> Record:
        """End a job nobody wants any more, unless it has ended; its result, if one comes, is dropped."""

    async def dead_letters(self, limit: int = 100) -> Sequence[Record]:
        """The jobs that have been dead for longest; one that was tried again and died again comes last."""

    async def requeue(self, id: str) -> Record:
        """Queue a dead job again, its deliveries forgotten.

        Raises: ConflictError if it is not dead.
        """

    async def statistics(self) -> BrokerStatistics:
        """Levels and counters."""

    async def close(self) -> None:
        """Let go."""


class Broker(Intake, Source, Protocol):
    """Both ends in one place."""
