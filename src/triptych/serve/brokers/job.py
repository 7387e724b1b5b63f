"""What a broker keeps: a job, whoever works on it, and what became of it. Bodies and results are bytes."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["queued", "running", "done", "failed", "cancelled", "dead"]
ENDED = ("done", "failed", "cancelled", "dead")


class Job(msgspec.Struct, frozen=True):
    """Work to keep safe.

    Args:
        id: unique; who publishes makes it.
        body: the work, opaque here.
        key: idempotency key; a second job of the same key, which asks for the same, is the first one.
            Empty: none.
    """

    id: str
    body: bytes
    key: str = ""


class Lease(msgspec.Struct, frozen=True):
    """A job in somebody's hands: his until he settles it, loses it or lets it expire.

    Args:
        deliveries: how often it has been handed out, this time included; above 1 it is redelivered.
        tag: what the broker knows this delivery by.
    """

    id: str
    body: bytes
    deliveries: int = 1
    tag: int = 0


class Record(msgspec.Struct, frozen=True):
    """What is known of a job.

    Args:
        result: once `done` the result, once `failed` the reason; else empty.
        reason: why it is `dead`.
        deliveries: how often it was handed out.
        submitted_at_s, ended_at_s: seconds since the epoch; 0 when not yet.
    """

    id: str
    state: State
    body: bytes
    result: bytes = b""
    reason: str = ""
    deliveries: int = 0
    submitted_at_s: float = 0.0
    ended_at_s: float = 0.0


class BrokerStatistics(msgspec.Struct, frozen=True):
    """Jobs by what they are now, and counters since this broker was opened."""

    queued: int = 0
    running: int = 0
    dead: int = 0
    published: int = 0
    settled: int = 0
    redelivered: int = 0
    dead_lettered: int = 0
    damaged: int = 0
    reconnects: int = 0
