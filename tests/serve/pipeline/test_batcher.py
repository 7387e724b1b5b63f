"""Laws of batchers, driven by hand: a batcher task, and a test that takes."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import DeadlineExceeded
from triptych.serve.pipeline.acknowledger import NoopAcknowledger
from triptych.serve.pipeline.batcher import Batcher
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.ledger import Ledger
from triptych.serve.pipeline.message import Message
from triptych.serve.pipeline.options import BatcherOptions


def message(data, **fields):
    return Message(data, NoopAcknowledger(), **fields)


@asynccontextmanager
async def running(**options):
    ledger = Ledger(Handler())
    batcher = Batcher("default", BatcherOptions(**{"batch_timeout_s": 60.0, **options}), ledger)

    async def put(*messages):
        ledger.accept(messages)
        for one in messages:
            batcher.put(one)
        while batcher._inbox:
            await asyncio.sleep(0)

    task = asyncio.create_task(batcher.run())
    yield batcher, put, ledger
    task.cancel()
    await asyncio.wait([task])
    for group in (*batcher._open.values(), *batcher._ready):
        group.timer.cancel()


def taken(batcher):
    batch = batcher.take()
    return batch and ([m.data for m in batch[0]], batch[1].reason)


@pytest.mark.anyio
async def test_an_idle_taker_gets_what_there_is():
    async with running(batch_size=9) as (batcher, put, _):
        await put(message(1), message(2))
        await batcher.has_batch()
        assert taken(batcher) == ([1, 2], "idle")
        assert taken(batcher) is None


@pytest.mark.anyio
async def test_rows_fill_a_batch_not_messages():
    async with running(batch_size=4, when_idle=False) as (batcher, put, _):
        await put(message("a", rows=3), message("b", rows=1), message("c", rows=1))
        assert taken(batcher) == (["a", "b"], "size")
        assert taken(batcher) is None


@pytest.mark.anyio
async def test_a_message_that_does_not_fit_begins_the_next_batch_and_a_giant_is_alone():
    async with running(batch_size=4, when_idle=False) as (batcher, put, _):
        await put(message("a", rows=3), message("b", rows=2), message("giant", rows=9), message("c", rows=4))
        assert [taken(batcher) for _ in range(5)] == [
            (["a"], "size"),
            (["b"], "size"),
            (["giant"], "size"),
            (["c"], "size"),
            None,
        ]


@pytest.mark.anyio
async def test_keys_never_share_a_batch():
    async with running(batch_size=2) as (batcher, put, _):
        await put(*(message(n, batch_key=n % 2) for n in range(4)))
        assert taken(batcher) == ([0, 2], "size")
        assert taken(batcher) == ([1, 3], "size")


@pytest.mark.anyio
async def test_the_timer_of_a_key_starts_at_its_first_message_and_a_due_batch_goes_first():
    async with running(batch_size=9, batch_timeout_s=0.02, when_idle=False) as (batcher, put, _):
        await put(message("old", batch_key="x"))
        assert taken(batcher) is None
        await batcher.has_batch()
        await put(message("joins", batch_key="x"))  # due, not yet taken: it still grows
        assert taken(batcher) == (["old", "joins"], "timeout")


@pytest.mark.anyio
async def test_draining_hands_out_what_would_have_waited():
    async with running(when_idle=False) as (batcher, put, _):
        await put(message(1))
        waiting = asyncio.create_task(batcher.has_batch())
        await asyncio.sleep(0)
        batcher.drain()
        await waiting
        assert taken(batcher) == ([1], "drain")


@pytest.mark.anyio
async def test_expired_and_cancelled_messages_are_dropped_before_compute():
    async with running() as (batcher, put, ledger):
        now_s = asyncio.get_running_loop().time()
        late, gone, good = message("late", deadline_s=now_s), message("gone"), message("good")
        await put(late, gone, good)
        gone.cancel()
        assert taken(batcher) == (["good"], "idle")
        statistics = ledger.statistics()
        assert (statistics.expired, statistics.cancelled, statistics.in_progress) == (1, 1, 1)
        assert late.acknowledged
        assert gone.acknowledged


@pytest.mark.anyio
async def test_a_group_whose_last_message_is_cancelled_is_gone():
    async with running(batch_size=1) as (batcher, put, _):
        full, waiting = message(1), message(2, batch_key="other", rows=0)
        await put(full, waiting)
        full.cancel()
        waiting.cancel()
        assert taken(batcher) is None
        assert batcher.room == batcher.options.max_demand


@pytest.mark.anyio
async def test_there_is_room_again_once_a_batch_is_taken():
    async with running(max_demand=3) as (batcher, put, _):
        await put(message(1, rows=3))
        waiting = asyncio.create_task(batcher.has_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        batcher.take()
        await waiting
        assert batcher.room == 3


arrivals = st.lists(st.tuples(st.integers(1, 12), st.sampled_from("xyz"), st.booleans()), max_size=40)


@given(arrivals, st.integers(1, 10), st.booleans())
def test_every_message_leaves_once_in_a_batch_of_its_key_within_the_size(messages, batch_size, when_idle):
    async def law():
        async with running(batch_size=batch_size, when_idle=when_idle) as (batcher, put, ledger):
            batches = []
            for number, (rows, key, take) in enumerate(messages):
                await put(message(number, rows=rows, batch_key=key))
                if take and (batch := batcher.take()):
                    batches.append(batch)
            batcher.drain()
            while batch := batcher.take():
                batches.append(batch)
            seen = Counter(m.data for batch, _ in batches for m in batch)
            assert seen == Counter(range(len(messages)))
            for batch, info in batches:
                assert {m.batch_key for m in batch} == {info.batch_key}
                assert info.rows == sum(m.rows for m in batch)
                assert info.rows <= batch_size or len(batch) == 1
                assert [m.data for m in batch] == sorted(m.data for m in batch)
            assert batcher.room == batcher.options.max_demand
            assert sum(ledger.statistics().batches.values()) == len(batches)

    asyncio.run(law())


@pytest.mark.anyio
async def test_what_would_expire_while_its_batch_is_computed_is_left_out_as_far_as_that_helps():
    async with running(batch_size=8) as (batcher, put, _):
        batcher.note(rows=1, elapsed_s=100.0)
        now_s = asyncio.get_running_loop().time()
        hasty, tight, patient = (message(s, deadline_s=now_s + s) for s in (150.0, 250.0, 1000.0))
        await put(patient, hasty, tight, message("any time"))
        batch, info = batcher.take()
        assert [m.data for m in batch] == [1000.0, "any time"]
        assert info.rows == 2
        assert [type(m.error) for m in (hasty, tight)] == [DeadlineExceeded] * 2
        assert hasty.acknowledged
        assert tight.acknowledged


@pytest.mark.anyio
async def test_of_work_that_is_all_too_late_one_is_computed_and_shows_whether_it_is():
    async with running(batch_size=8) as (batcher, put, _):
        batcher.note(rows=1, elapsed_s=1000.0)
        now_s = asyncio.get_running_loop().time()
        await put(*(message(s, deadline_s=now_s + s) for s in (100.0, 300.0, 200.0)))
        assert taken(batcher) == ([300.0], "idle")
        batcher.note(rows=1, elapsed_s=10.0)
        await put(*(message(s, deadline_s=now_s + s) for s in (100.0, 300.0, 200.0)))
        assert taken(batcher) == ([100.0, 300.0, 200.0], "idle")


@given(st.lists(st.tuples(st.integers(1, 8), st.none() | st.floats(1.0, 100.0)), min_size=1, max_size=20))
def test_all_but_a_lone_one_have_the_time_that_their_batch_takes(works):
    async def law():
        async with running(batch_size=1000, max_demand=1000) as (batcher, put, _):
            batcher.note(rows=1, elapsed_s=1.0)
            now_s = asyncio.get_running_loop().time()
            messages = [message(0, rows=rows, deadline_s=s and now_s + s) for rows, s in works]
            await put(*messages)
            batch, info = batcher.take()
            in_time = [m.deadline_s is None or m.deadline_s > now_s + info.rows for m in batch]
            assert all(in_time) or len(batch) == 1
            assert all(m in batch or m.acknowledged for m in messages)

    asyncio.run(law())
