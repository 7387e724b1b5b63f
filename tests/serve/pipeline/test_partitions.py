"""Laws of partitions: one key, one processor, one order; a slow key holds up others and loses nothing."""

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager

import pytest

from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import PipelineOptions, ProcessorsOptions
from triptych.serve.pipeline.pipeline import Pipeline
from triptych.serve.pipeline.testing import DummyProducer, WaitingAcknowledger, test_batch

pytestmark = pytest.mark.anyio


class Sorter(Handler):
    """Messages are (key, number). Writes down who had them, in which order; `gates` hold keys back."""

    def __init__(self):
        self.numbers, self.tasks, self.gates = defaultdict(list), defaultdict(set), {}
        self.held, self.full = asyncio.Event(), asyncio.Event()  # one waits at a gate; a key has had four

    def partition_by(self, message):
        key, number = message.data
        if number == "unsorted":
            raise ValueError(number)
        return key

    async def handle_message(self, message):
        key, number = message.data
        if key in self.gates:
            self.held.set()
            await self.gates[key].wait()
        await asyncio.sleep(0)  # others go on meanwhile
        self.numbers[key].append(number)
        if len(self.numbers[key]) == 4:
            self.full.set()
        self.tasks[key].add(asyncio.current_task().get_name())
        message.put_result(number)


@asynccontextmanager
async def running(handler, concurrency=4, max_demand=8):
    producer = DummyProducer()
    processors = ProcessorsOptions(concurrency=concurrency, max_demand=max_demand)
    pipeline = Pipeline(handler, producer, PipelineOptions(processors=processors, batchers={}))
    await pipeline.start()
    try:
        yield pipeline, producer
    finally:
        await pipeline.stop()


async def test_messages_of_one_key_have_one_processor_and_keep_their_order():
    handler = Sorter()
    async with running(handler) as (_, producer):
        messages = await test_batch(producer, [(n % 7, n) for n in range(700)])
    assert [message.result for message in messages] == list(range(700))
    assert all(numbers == sorted(numbers) for numbers in handler.numbers.values())
    assert all(len(tasks) == 1 for tasks in handler.tasks.values())
    assert len(set.union(*handler.tasks.values())) > 1


async def test_messages_without_a_key_are_shared_out():
    handler = Sorter()
    async with running(handler) as (_, producer):
        await test_batch(producer, [(None, n) for n in range(200)])
    assert len(handler.tasks[None]) > 1


async def test_a_key_that_cannot_be_told_fails_its_message_alone():
    async with running(Sorter()) as (_, producer):
        bad, good = await test_batch(producer, [(1, "unsorted"), (1, 5)])
    assert "ValueError" in str(bad.error)
    assert good.result == 5


async def test_a_key_that_is_held_back_bounds_what_is_taken_and_loses_nothing():
    handler = Sorter()
    handler.gates[0] = gate = asyncio.Event()
    async with running(handler, concurrency=2, max_demand=4) as (_, producer):
        waiting = asyncio.create_task(test_batch(producer, [(n % 2, n) for n in range(100)]))
        await handler.full.wait()
        for _ in range(200):  # turns of the event loop, far more than taking all of them would need
            await asyncio.sleep(0)
        assert len(producer) > 70  # two lanes of four, and what two processors hold
        gate.set()
        assert [message.result for message in await waiting] == list(range(100))


async def test_drain_hands_out_what_waits_in_every_lane():
    handler = Sorter()
    handler.gates[0] = gate = asyncio.Event()
    async with running(handler, concurrency=2, max_demand=4) as (pipeline, producer):
        waiting = asyncio.create_task(test_batch(producer, [(0, n) for n in range(12)]))
        await asyncio.sleep(0)
        draining = asyncio.create_task(pipeline.drain())
        gate.set()
        assert await draining
        assert [message.result for message in await waiting] == list(range(12))


async def test_a_pipeline_that_ends_answers_what_waits_in_its_lanes():
    handler = Sorter()
    handler.gates[0] = asyncio.Event()
    producer = DummyProducer()
    processors = ProcessorsOptions(concurrency=2, max_demand=4)
    pipeline = Pipeline(handler, producer, PipelineOptions(processors=processors, batchers={}))
    await pipeline.start()
    waiting = asyncio.create_task(test_batch(producer, [(0, n) for n in range(20)]))
    await handler.held.wait()
    await pipeline.stop("brutal_kill")
    assert {message.status for message in await waiting} == {"failed"}


async def test_a_processor_that_is_killed_while_it_takes_leaves_its_turn_to_another():
    handler = Sorter()
    async with running(handler, concurrency=2) as (pipeline, producer):
        await producer.asked.wait()
        (processors,) = (c for c in pipeline.supervisor.which_children() if c.id == "processors")
        first = processors.child.which_children()[0].child
        first.task.cancel()
        done = asyncio.get_running_loop().create_future()
        producer.offer(Message((3, 1), WaitingAcknowledger(), done))
        assert (await done).result == 1
