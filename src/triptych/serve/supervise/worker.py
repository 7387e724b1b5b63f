"""What runs in a worker process: a handler of work, and the loop that feeds it from its channel."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from triptych.serve.supervise.failure import Failure


class StreamEvent(msgspec.Struct, frozen=True, array_like=True):
    """One step of one stream: a piece of its answer, and whether it was the last (`failure`: it ended badly)."""

    stream_id: int
    piece: bytes = b""
    done: bool = False
    failure: Failure | None = None


class WorkHandler(Protocol):
    """The work itself. One thread calls it; it may crash, hang or be killed without harm to anyone else.

    It is made by the factory named in `WorkerPool(target=...)`, called with `args` in the worker process. Answers
    must depend on the payload alone, because work that lost its worker is done again by another.
    """

    def handle_batch(self, payloads: list[bytes]) -> list[bytes | Failure]:
        """Answer one-shot work: one answer per payload, in the same order. Raising fails the batch as a whole."""

    def open_stream(self, stream_id: int, payload: bytes) -> None:
        """Let a stream join; raising ends that stream alone."""

    def step(self) -> list[StreamEvent]:
        """Advance every open stream by one step; called in a loop while streams are open.

        Between steps the channel is drained, so batches, new streams and cancellations interleave. A stream whose
        event says `done` or carries a failure is closed by the loop: `close_stream` is not called for it. Raising
        fails every open stream.
        """

    def close_stream(self, stream_id: int) -> None:
        """Forget a stream whose reader went away."""

    def close(self) -> None:
        """Called once, before the process ends in good order."""


def serve(call: dict[str, Any]) -> int:
    """Entry point of a worker process (`spawn`'s target)."""
    raise SystemExit(call)
