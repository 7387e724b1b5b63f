"""Laws of the whole pipeline, with integers for work."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import ConfigError, DeadlineExceeded, Draining, InputError, Poison, WorkerDied
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.options import BatcherOptions, PipelineOptions, ProcessorsOptions
from triptych.serve.pipeline.pipeline import Pipeline
from triptych.serve.pipeline.testing import DummyProducer, test_batch, test_message

pytestmark = pytest.mark.anyio


class Doubler(Handler):
    """Doubles integers; writes down its batches; `gate` holds every batch until the test opens it."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.inside = asyncio.Event()

    async def handle_batch(self, batcher, messages, info):
        self.batches.append([m.data for m in messages])
        self.inside.set()
        await self.gate.wait()
        for m in messages:
            self.handle(m)

    def handle(self, m):
        m.put_result(2 * m.data)


@asynccontextmanager
async def running(handler, *, concurrency=1, max_demand=64, **options):
    producer = DummyProducer()
    options.setdefault("batchers", {"default": BatcherOptions()})
    pipeline = Pipeline(
        handler,
        producer,
        PipelineOptions(
            processors=ProcessorsOptions(concurrency=concurrency, max_demand=max_demand), **options
        ),
    )
    await pipeline.start()
    try:
        yield pipeline, producer
    finally:
        await pipeline.stop()


def results(messages):
    return [m.result if m.status == "ok" else type(m.error).__name__ for m in messages]


async def test_what_goes_in_comes_out_answered():
    async with running(Doubler(), concurrency=3) as (pipeline, producer):
        assert results(await test_batch(producer, range(1000))) == [2 * n for n in range(1000)]
        statistics = pipeline.statistics()
        assert (statistics.accepted, statistics.succeeded, statistics.in_progress) == (1000, 1000, 0)
        assert sum(statistics.batches.values()) == len({*map(tuple, pipeline._ledger._handler.batches)})


async def test_without_batchers_a_message_ends_after_handle_message():
    class Direct(Handler):
        async def handle_message(self, message):
            message.put_result(message.data + 1)

    async with running(Direct(), batchers={}) as (_, producer):
        assert results(await test_batch(producer, [1, 2])) == [2, 3]


async def test_handle_message_chooses_batcher_and_key():
    class Sorting(Doubler):
        def handle_message(self, message):
            message.put_batcher("even" if message.data % 2 == 0 else "odd").put_batch_key(message.data // 10)

    batchers = {"even": BatcherOptions(), "odd": BatcherOptions()}
    handler = Sorting()
    async with running(handler, batchers=batchers) as (_, producer):
        await test_batch(producer, [1, 2, 3, 12, 14])
        assert sorted(handler.batches) == [[1, 3], [2], [12, 14]]


async def test_an_unknown_batcher_fails_the_message_and_names_the_known():
    async with running(Doubler()) as (_, producer):
        message = await test_message(producer, 1, batcher="defualt")
        assert isinstance(message.error, ConfigError)
        assert "Did you mean `default`" in str(message.error)
        assert (await test_message(producer, 1)).result == 2


@pytest.mark.parametrize("callback", ["handle_message", "prepare_messages", "handle_failed"])
async def test_a_raising_callback_fails_its_messages_and_never_the_stage(callback):
    class Raising(Doubler):
        def handle(self, m):
            if m.data == 13:
                raise ValueError("unlucky")
            super().handle(m)

    handler = Raising()

    def unlucky(given):
        given = [given] if callback == "handle_message" else given
        if any(m.data == 13 for m in given):
            raise ValueError("unlucky")

    setattr(handler, callback, unlucky)
    async with running(handler) as (pipeline, producer):
        assert (await test_message(producer, 13)).status == "failed"
        assert (await test_message(producer, 1)).result == 2
        assert pipeline.supervisor.count_children().restarts == 0


async def test_a_callback_that_awaits_something_cancelled_fails_its_message_only():
    class Cancelled(Doubler):
        async def handle_message(self, message):
            if message.data == 13:
                await self.gone()

        def handle(self, m):
            if m.data == 14:
                raise asyncio.CancelledError
            super().handle(m)

        async def gone(self):
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async with running(Cancelled()) as (_, producer):
        assert (await test_message(producer, 13)).status == "failed"
        assert (await test_message(producer, 14)).status == "failed"
        assert (await test_message(producer, 1)).result == 2


async def test_a_batch_that_raises_is_tried_one_by_one_so_that_only_the_culprit_fails():
    class Raising(Doubler):
        def handle(self, m):
            if m.data == 13:
                raise InputError("unlucky")
            super().handle(m)

    handler = Raising()
    async with running(handler) as (_, producer):
        messages = await test_batch(producer, [11, 12, 13, 14])
        assert results(messages) == [22, 24, "InputError", 28]
        assert handler.batches == [[11, 12, 13, 14], [13], [14]]
        assert messages[3].metadata == {"redelivered": True}
        assert messages[0].metadata == {}


async def test_a_message_left_without_an_answer_fails():
    class Forgetful(Doubler):
        def handle(self, m):
            pass

    async with running(Forgetful()) as (_, producer):
        assert "no answer" in str((await test_message(producer, 1)).error)


async def test_handle_failed_sees_failures_before_they_are_acknowledged():
    class Mending(Doubler):
        def handle(self, m):
            m.failed("no")

        def handle_failed(self, messages):
            for m in messages:
                m.put_result("mended")

    async with running(Mending()) as (_, producer):
        assert (await test_message(producer, 1)).result == "mended"


class Deadly(Doubler):
    """Integers in `poison` end the worker of every batch they are in."""

    def __init__(self, poison):
        super().__init__()
        self.poison = poison

    async def handle_batch(self, batcher, messages, info):
        self.batches.append([m.data for m in messages])
        if self.poison.intersection(self.batches[-1]):
            raise WorkerDied("dead")
        for m in messages:
            self.handle(m)


@given(st.sets(st.integers(0, 39)), st.integers(1, 16))
@settings(max_examples=30)
def test_the_innocent_are_answered_and_every_poison_is_found(poison, batch_size):
    async def law():
        batchers = {"default": BatcherOptions(batch_size=batch_size)}
        async with running(Deadly(poison), batchers=batchers) as (pipeline, producer):
            messages = await test_batch(producer, range(40))
            assert results(messages) == ["Poison" if n in poison else 2 * n for n in range(40)]
            assert pipeline.statistics().poisoned == len(poison)
            assert all(m.deliveries >= 3 for m in messages if m.data in poison)

    asyncio.run(law())


async def test_a_lone_message_is_tried_max_deliveries_times():
    handler = Deadly({1})
    async with running(handler) as (_, producer):
        message = await test_message(producer, 1)
        assert isinstance(message.error, Poison)
        assert handler.batches == [[1]] * 3
        assert message.metadata["redelivered"]


async def test_work_that_waited_for_another_worker_is_no_measure_of_the_time_that_work_takes():
    class Bereaved(Doubler):
        async def handle_batch(self, batcher, messages, info):
            if not self.batches:
                self.batches.append([])
                raise WorkerDied("dead")
            if len(self.batches) == 1:
                await asyncio.sleep(0.5)  # nobody is there to take it
            await super().handle_batch(batcher, messages, info)

    async with running(Bereaved()) as (_, producer):
        assert results([await test_message(producer, 0)]) == [0]
        deadline_s = asyncio.get_running_loop().time() + 10.0
        assert results(await test_batch(producer, range(32), deadline_s=deadline_s)) == [
            2 * n for n in range(32)
        ]


async def test_a_refusal_is_not_tried_again():
    class Full(Doubler):
        async def handle_batch(self, batcher, messages, info):
            self.batches.append(len(messages))
            raise DeadlineExceeded("late")

    handler = Full()
    async with running(handler) as (_, producer):
        assert results(await test_batch(producer, [1, 2])) == ["DeadlineExceeded"] * 2
        assert handler.batches == [2]


async def test_while_the_worker_is_busy_the_next_batch_fills():
    handler = Doubler()
    handler.gate.clear()
    async with running(handler) as (pipeline, producer):
        first = asyncio.create_task(test_message(producer, 0))
        await handler.inside.wait()
        rest = asyncio.create_task(test_batch(producer, range(1, 65)))
        await asyncio.sleep(0)
        handler.gate.set()
        await first
        await rest
        assert handler.batches == [[0], list(range(1, 65))]
        assert pipeline.statistics().batches == {"idle": 1, "size": 1}


async def test_capacity_is_awaited_before_a_batch_is_taken_so_that_it_can_fill():
    class Busy(Doubler):
        async def capacity(self, batcher):
            self.inside.set()
            await self.gate.wait()

    handler = Busy()
    handler.gate.clear()
    async with running(handler) as (_, producer):
        first = asyncio.create_task(test_message(producer, 0))
        await handler.inside.wait()
        second = asyncio.create_task(test_message(producer, 1))
        for _ in range(10):
            await asyncio.sleep(0)
        handler.gate.set()
        await first
        await second
        assert handler.batches == [[0, 1]]


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 6),
)
@settings(max_examples=40)
def test_demand_bounds_what_is_inside(rows, max_demand, batcher_demand, concurrency, batch_size):
    """With every worker stuck: the batcher's, a batch per batch processor, an overshoot per processor."""

    async def law():
        handler = Doubler()
        handler.gate.clear()
        batchers = {"default": BatcherOptions(batch_size=batch_size, max_demand=batcher_demand)}
        async with running(handler, concurrency=concurrency, max_demand=max_demand, batchers=batchers) as (
            pipeline,
            producer,
        ):
            sending = [
                asyncio.create_task(test_message(producer, number, rows=size))
                for number, size in enumerate(rows)
            ]
            for _ in range(50):
                await asyncio.sleep(0)
            assert all(1 <= demand <= min(max_demand, batcher_demand) for demand in producer.demands)
            bound = batcher_demand + concurrency * max(max_demand, 5) + max(batch_size, 5)
            inside = rows[: pipeline.statistics().in_progress]
            assert sum(inside) <= bound
            assert len(producer) == len(rows) - len(inside)
            handler.gate.set()
            assert [m.result for m in await asyncio.gather(*sending)] == [2 * n for n in range(len(rows))]

    asyncio.run(law())


async def test_drain_finishes_what_is_inside_and_refuses_the_rest():
    handler = Doubler()
    handler.gate.clear()
    async with running(handler, batchers={"default": BatcherOptions(batch_size=2)}) as (pipeline, producer):
        sending = asyncio.create_task(test_batch(producer, range(9)))
        await handler.inside.wait()
        draining = asyncio.create_task(pipeline.drain(30.0))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await test_message(producer, 1)
        handler.gate.set()
        assert await draining
        assert results(await sending) == [2 * n for n in range(9)]


async def test_drain_hands_out_batches_that_wait_to_fill():
    batchers = {"default": BatcherOptions(batch_timeout_s=60.0, when_idle=False)}
    async with running(Doubler(), batchers=batchers) as (pipeline, producer):
        sending = asyncio.create_task(test_message(producer, 1))
        await asyncio.sleep(0)
        assert await pipeline.drain(30.0)
        assert (await sending).result == 2
        assert pipeline.statistics().batches == {"drain": 1}


async def test_stop_fails_whatever_is_left_wherever_it_is_once():
    handler = Doubler()
    handler.gate.clear()
    batchers = {"default": BatcherOptions(batch_size=2, max_demand=4)}
    async with running(handler, max_demand=2, batchers=batchers) as (pipeline, producer):
        sending = asyncio.create_task(test_batch(producer, range(20)))
        await handler.inside.wait()
        assert not await pipeline.drain(0.01)
        await pipeline.stop()
        assert set(results(await sending)) == {"Draining"}
        statistics = pipeline.statistics()
        assert (statistics.accepted, statistics.failed, statistics.in_progress) == (20, 20, 0)
