"""Laws of the direct lane: each caller gets exactly one answer, by the deadline."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from triptych.errors import DeadlineExceeded, InputError, Overloaded
from triptych.serve.brokers.memory import MemoryBroker
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.options import BatcherOptions, PipelineOptions, ProducerOptions
from triptych.serve.pipeline.pipeline import Pipeline

pytestmark = pytest.mark.anyio


class Gated(Handler):
    """Echoes; words fail; `gate` holds every batch until the test opens it."""

    def __init__(self):
        self.gate, self.inside = asyncio.Event(), asyncio.Event()
        self.computed = []

    async def handle_batch(self, batcher, messages, info):
        self.inside.set()
        await self.gate.wait()
        for m in messages:
            self.computed.append(m.data)
            if isinstance(m.data, str):
                m.failed(InputError(m.data))
            else:
                m.put_result(m.data)


@asynccontextmanager
async def running(*, is_open=True, **options):
    broker, handler = MemoryBroker(ProducerOptions(**options)), Gated()
    if is_open:
        handler.gate.set()
    pipeline = Pipeline(
        handler, broker, PipelineOptions(batchers={"default": BatcherOptions(batch_size=1, max_demand=1)})
    )
    await pipeline.start()
    yield broker, handler, pipeline
    await pipeline.stop()


async def test_callers_get_their_own_answers():
    async with running() as (broker, _, _):
        answers = await asyncio.gather(*(broker.ask(n) for n in range(100)))
        assert answers == list(range(100))
        with pytest.raises(InputError, match="bad"):
            await broker.ask("bad")


async def test_a_deadline_covers_queue_and_compute_and_expired_work_is_not_computed():
    async with running(is_open=False) as (broker, handler, pipeline):
        deadline_s = asyncio.get_running_loop().time() + 0.2
        asked = [asyncio.create_task(broker.ask(n, deadline_s=deadline_s)) for n in range(6)]
        for ask in asked:
            with pytest.raises(DeadlineExceeded):
                await ask
        handler.gate.set()
        assert await broker.ask(100) == 100
        assert handler.computed == [0, 100]
        statistics = pipeline.statistics()
        assert statistics.in_progress == 0
        assert statistics.cancelled == 0
        assert statistics.expired == statistics.failed == statistics.accepted - 1


async def test_a_caller_that_goes_away_frees_its_place_and_harms_nobody():
    async with running(is_open=False, capacity=3) as (broker, handler, _):
        begun = asyncio.create_task(broker.ask(0))
        await handler.inside.wait()
        asked = []
        for number in range(1, 20):
            asked.append(asyncio.create_task(broker.ask(number)))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await broker.ask(100)
        for ask in asked:
            ask.cancel()
        await asyncio.wait(asked)
        assert len(broker) == 0
        begun.cancel()
        handler.gate.set()
        assert await broker.ask(101) == 101
        assert handler.computed == [0, 101]
        refused = [ask for ask in asked if not ask.cancelled()]
        assert all(isinstance(ask.exception(), Overloaded) for ask in refused)
