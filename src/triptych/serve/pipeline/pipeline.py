"""The pipeline: producer, processors, batchers and batch processors under one supervisor."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.options import PipelineOptions
from triptych.serve.pipeline.producer import Producer
from triptych.serve.supervise.spec import Event, Exit, Shutdown
from triptych.serve.supervise.supervisor import ignore


class PipelineStatistics(msgspec.Struct, frozen=True):
    """Counters since start, and how many messages are inside now."""

    accepted: int
    succeeded: int
    failed: int
    expired: int
    cancelled: int
    redelivered: int
    poisoned: int
    batches: dict[str, int]
    rows: int
    in_progress: int


class Pipeline:
    """Carries messages from `producer` through `handler` to their acknowledgers; is itself a `Child`.

    Every message the producer hands out is acknowledged exactly once: also when a stage crashes, and when the
    pipeline is stopped. `options.producer` is not read here: the producer was made with it.
    """

    def __init__(
        self,
        handler: Handler,
        producer: Producer,
        options: PipelineOptions | None = None,
        *,
        on_event: Callable[[Event], None] = ignore,
    ) -> None:
        raise NotImplementedError

    @property
    def pid(self) -> None:
        """None: its stages are tasks of this process."""
        return None

    async def start(self) -> None:
        """Start the stages."""

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Accept nothing new and finish what is inside; whether all was done within `timeout_s` (or `shutdown_s`)."""
        raise NotImplementedError

    async def wait(self) -> Exit:
        """Return once the pipeline has ended."""
        raise NotImplementedError

    async def stop(self, shutdown: Shutdown = "brutal_kill") -> Exit:
        """Drain for at most `shutdown` seconds, stop the stages, fail what is left with `Draining`."""
        raise NotImplementedError

    def statistics(self) -> PipelineStatistics:
        """Counters and levels."""
        raise NotImplementedError
