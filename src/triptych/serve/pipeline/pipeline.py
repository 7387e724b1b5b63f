"""The pipeline: producer, processors, batchers and batch processors under one supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from triptych.errors import Draining, TriptychError
from triptych.serve.pipeline.batch_processor import BatchProcessor
from triptych.serve.pipeline.batcher import Batcher
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.ledger import Ledger, PipelineStatistics
from triptych.serve.pipeline.options import PipelineOptions
from triptych.serve.pipeline.partitions import Partitions
from triptych.serve.pipeline.processor import Processor
from triptych.serve.pipeline.producer import Producer
from triptych.serve.supervise.spec import ChildSpec, Event, Exit, Shutdown
from triptych.serve.supervise.supervisor import Strategy, Supervisor, ignore
from triptych.serve.supervise.task import task


class Pipeline:
    """Carries messages from `producer` through `handler` to their acknowledgers; is itself a `Child`.

    Every message the producer hands out is acknowledged exactly once: also when a stage crashes, and when the
    pipeline is stopped. `options.producer` is not read here: the producer was made with it.

    The stages form a tree. A crash cascades down, never up to the producer::

        pipeline (one_for_one)
        ├── batcher default (rest_for_one)
        │   ├── batcher
        │   └── batch processors (one_for_one)
        └── processors (one_for_one)
    """

    def __init__(
        self,
        handler: Handler,
        producer: Producer,
        options: PipelineOptions | None = None,
        *,
        on_event: Callable[[Event], None] = ignore,
    ) -> None:
        self.options = options or PipelineOptions()
        self.producer: Producer | Partitions = producer
        self._on_event = on_event
        self._ledger = Ledger(handler)
        self._batchers = {
            name: Batcher(name, settings, self._ledger) for name, settings in self.options.batchers.items()
        }
        self._batch_processors = {
            name: [
                BatchProcessor(handler, batcher, self._ledger, self.options.max_deliveries)
                for _ in range(batcher.options.concurrency)
            ]
            for name, batcher in self._batchers.items()
        }
        processors, lanes = self.options.processors, [producer] * self.options.processors.concurrency
        if type(handler).partition_by is not Handler.partition_by:
            partitions = Partitions(
                producer, handler.partition_by, processors.concurrency, processors.max_demand
            )
            self.producer, lanes = partitions, [*partitions.lanes]
        self._processors = [
            Processor(handler, lane, self._batchers, self._ledger, processors) for lane in lanes
        ]
        self._supervisor = self._supervise(self.options.name, self._stages())
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> None:
        """None: its stages are tasks of this process."""
        return None

    @property
    def supervisor(self) -> Supervisor:
        """The root of its stages, for `which_children()`."""
        return self._supervisor

    async def start(self) -> None:
        """Start the stages."""
        await self._supervisor.start()
        self._watch = asyncio.create_task(self._watch_supervisor(), name=f"watch {self.options.name}")

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Accept nothing new, finish what is inside; false if `timeout_s` (or `shutdown_s`) was too short."""
        self.producer.drain()
        for batcher in self._batchers.values():
            batcher.drain()
        try:
            async with asyncio.timeout(self.options.shutdown_s if timeout_s is None else timeout_s):
                while self._ledger.inside or not all(processor.ended for processor in self._processors):
                    self._ledger.changed.clear()
                    await self._ledger.changed.wait()
        except TimeoutError:
            return False
        return True

    async def wait(self) -> Exit:
        """Return once the pipeline has been stopped (code 0) or has given up (its SupervisorFailed)."""
        return await self._supervisor.wait()

    async def stop(self, shutdown: Shutdown = "brutal_kill") -> Exit:
        """Drain for at most `shutdown` seconds (`infinity`: `shutdown_s`), stop the stages, fail the rest."""
        if shutdown != "brutal_kill":
            await self.drain(None if shutdown == "infinity" else float(shutdown))
        end = await self._supervisor.stop()
        if self._watch is not None:
            await self._watch
        return end

    def statistics(self) -> PipelineStatistics:
        """Counters and levels."""
        return self._ledger.statistics()

    def _stages(self) -> list[ChildSpec]:
        batchers = [
            self._nest(f"batcher {name}", partial(self._batcher_stages, name), "rest_for_one")
            for name in self._batchers
        ]
        processors = [
            task(f"processor {i}", processor.run, restart="transient")
            for i, processor in enumerate(self._processors)
        ]
        return [*batchers, self._nest("processors", lambda: processors)]

    def _batcher_stages(self, name: str) -> list[ChildSpec]:
        processors = [
            task(f"batch processor {i}", processor.run)
            for i, processor in enumerate(self._batch_processors[name])
        ]
        return [task("batcher", self._batchers[name].run), self._nest("batch processors", lambda: processors)]

    def _nest(
        self, id: str, specs: Callable[[], list[ChildSpec]], strategy: Strategy = "one_for_one"
    ) -> ChildSpec:
        async def start() -> Supervisor:
            supervisor = self._supervise(id, specs(), strategy)
            await supervisor.start()
            return supervisor

        return ChildSpec(id, start, shutdown="infinity")

    def _supervise(self, name: str, specs: list[ChildSpec], strategy: Strategy = "one_for_one") -> Supervisor:
        return Supervisor(
            specs,
            name=name,
            strategy=strategy,
            max_restarts=self.options.max_restarts,
            max_seconds=self.options.max_seconds,
            on_event=self._on_event,
        )

    async def _watch_supervisor(self) -> None:
        """When the stages have ended, for whatever reason, whatever they held gets its one answer."""
        end = await self._supervisor.wait()
        reason = end.exception
        error = reason if isinstance(reason, TriptychError) else Draining("the pipeline has ended")
        refused = self.producer.refuse_all()
        self._ledger.accept(refused)
        left = [message for stage in self._all_stages() for message in stage.abandon()]
        for message in (*refused, *left):
            message.failed(error)
        self._ledger.finish([*refused, *left])

    def _all_stages(self) -> Iterable[Processor | Batcher | BatchProcessor]:
        yield from self._processors
        yield from self._batchers.values()
        for processors in self._batch_processors.values():
            yield from processors
