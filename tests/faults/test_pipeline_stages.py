"""Stages are killed in the middle of their work: crashes cascade down, never up, and no message is lost."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from triptych.errors import SupervisorFailed
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.options import BatcherOptions, PipelineOptions
from triptych.serve.pipeline.pipeline import Pipeline
from triptych.serve.pipeline.testing import DummyProducer, test_batch, test_message

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


class Gated(Handler):
    """Doubles integers; the first call of `stuck_in` waits for ever."""

    def __init__(self, stuck_in):
        self.stuck_in = stuck_in
        self.inside = asyncio.Event()
        self.batches = []

    async def handle_message(self, message):
        await self.maybe_stick("handle_message")

    async def handle_batch(self, batcher, messages, info):
        self.batches.append([m.data for m in messages])
        await self.maybe_stick("handle_batch")
        for m in messages:
            m.put_result(2 * m.data)

    async def maybe_stick(self, place):
        if self.stuck_in == place and not self.inside.is_set():
            self.inside.set()
            await asyncio.Event().wait()


@asynccontextmanager
async def running(handler, **options):
    producer, events = DummyProducer(), []
    options.setdefault("batchers", {"default": BatcherOptions(batch_size=4)})
    pipeline = Pipeline(handler, producer, PipelineOptions(**options), on_event=events.append)
    await pipeline.start()
    yield pipeline, producer, events
    await pipeline.stop()


def find(supervisor, *path):
    """The running child at `path`."""
    for id in path:
        (info,) = [info for info in supervisor.which_children() if info.id == id]
        supervisor = info.child
    return supervisor


def stories(events, kind):
    return [f"{event.supervisor}/{event.child}" for event in events if event.kind == kind]


async def test_a_killed_batch_processor_delivers_its_batch_again():
    handler = Gated("handle_batch")
    async with running(handler) as (pipeline, producer, events):
        sending = asyncio.create_task(test_batch(producer, range(10)))
        await handler.inside.wait()
        find(pipeline.supervisor, "batcher default", "batch processors", "batch processor 0").task.cancel()
        messages = await sending
        assert [m.result for m in messages] == [2 * n for n in range(10)]
        assert all(m.metadata.get("redelivered") for m in messages[: len(handler.batches[0])])
        assert stories(events, "died") == ["batch processors/batch processor 0"]


async def test_a_killed_batcher_takes_its_batch_processors_along_and_nobody_else():
    handler = Gated("handle_batch")
    async with running(handler) as (pipeline, producer, events):
        sending = asyncio.create_task(test_batch(producer, range(10)))
        await handler.inside.wait()
        find(pipeline.supervisor, "batcher default", "batcher").task.cancel()
        assert [m.result for m in await sending] == [2 * n for n in range(10)]
        assert stories(events, "died") == ["batcher default/batcher"]
        assert stories(events, "restarted") == ["batcher default/batcher", "batcher default/batch processors"]
        assert pipeline.supervisor.count_children().restarts == 0


async def test_a_killed_processor_goes_on_where_it_was():
    handler = Gated("handle_message")
    async with running(handler) as (pipeline, producer, events):
        sending = asyncio.create_task(test_batch(producer, range(10)))
        await handler.inside.wait()
        find(pipeline.supervisor, "processors", "processor 0").task.cancel()
        messages = await sending
        assert [m.result for m in messages] == [2 * n for n in range(10)]
        assert Counter(n for batch in handler.batches for n in batch) == Counter(range(10))
        assert stories(events, "died") == ["processors/processor 0"]


async def test_a_pipeline_that_gives_up_answers_everyone_and_says_why():
    handler = Gated("handle_batch")
    async with running(handler, max_restarts=1) as (pipeline, producer, _):
        sending = asyncio.create_task(test_batch(producer, range(10)))
        await handler.inside.wait()
        producer.take = None  # a fault in our own code: every processor dies at once, each time
        find(pipeline.supervisor, "processors", "processor 0").task.cancel()
        end = await pipeline.wait()
        assert isinstance(end.exception, SupervisorFailed)
        assert {type(m.error) for m in await sending} == {SupervisorFailed}
        assert pipeline.statistics().in_progress == 0


async def test_a_pipeline_works_on_after_a_stage_came_back():
    handler = Gated("handle_batch")
    async with running(handler) as (pipeline, producer, _):
        sending = asyncio.create_task(test_message(producer, 1))
        await handler.inside.wait()
        find(pipeline.supervisor, "batcher default", "batcher").task.cancel()
        await sending
        assert [m.result for m in await test_batch(producer, [2, 3])] == [4, 6]
        assert await pipeline.drain(30.0)
