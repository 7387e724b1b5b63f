"""Laws of the queue in memory."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import DeadlineExceeded, Draining, Overloaded
from triptych.serve.pipeline.acknowledger import NoopAcknowledger
from triptych.serve.pipeline.message import Message, rows_of
from triptych.serve.pipeline.options import ProducerOptions, RateLimit
from triptych.serve.pipeline.producer import QueueProducer


def message(data=0, **fields):
    return Message(data, NoopAcknowledger(), **fields)


def queue(**options):
    return QueueProducer(ProducerOptions(**options))


@pytest.mark.anyio
async def test_a_full_queue_refuses_at_once_and_a_cancelled_message_makes_room():
    producer = queue(capacity=2)
    first, second = message(1), message(2)
    producer.offer(first)
    producer.offer(second)
    with pytest.raises(Overloaded, match="Try again in 1 s"):
        producer.offer(message(3))
    first.cancel()
    assert first.acknowledged
    producer.offer(message(3))
    assert [m.data for m in await producer.take(9)] == [2, 3]


@pytest.mark.anyio
async def test_what_arrives_too_late_is_not_queued():
    with pytest.raises(DeadlineExceeded):
        queue().offer(message(deadline_s=asyncio.get_running_loop().time()))


@pytest.mark.anyio
async def test_drained_means_that_the_rest_is_handed_out_and_then_nothing():
    producer = queue()
    producer.offer(message(1))
    producer.drain()
    with pytest.raises(Draining):
        producer.offer(message(2))
    assert len(await producer.take(9)) == 1
    assert await producer.take(9) == []


@pytest.mark.anyio
async def test_takers_that_wait_are_released_by_drain():
    producer = queue()
    takers = [asyncio.create_task(producer.take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    producer.drain()
    assert await asyncio.gather(*takers) == [[], [], []]


@pytest.mark.anyio
async def test_a_taker_cancelled_as_it_is_woken_passes_its_turn_on():
    producer = queue()
    first, second = (asyncio.create_task(producer.take(1)) for _ in range(2))
    await asyncio.sleep(0)
    producer.offer(message(1))
    first.cancel()
    assert [m.data for m in await second] == [1]
    await asyncio.wait([first])
    assert first.cancelled()


@pytest.mark.anyio
async def test_no_more_messages_leave_in_a_window_than_the_rate_allows():
    producer = queue(rate_limiting=RateLimit(allowed_messages=3, interval_s=0.05))
    for number in range(5):
        producer.offer(message(number))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert len(await producer.take(9)) == 3
    assert len(await producer.take(9)) == 2
    assert loop.time() - began_s >= 0.045


rows = st.integers(1, 9)


@given(st.lists(rows, max_size=30), st.lists(rows, min_size=60, max_size=60))
def test_takes_never_exceed_demand_in_rows_except_by_a_lone_message_and_keep_order(offered, demands):
    async def law():
        producer = queue()
        for number, size in enumerate(offered):
            producer.offer(message(number, rows=size))
        producer.drain()
        seen = []
        for demand in demands:
            taken = await producer.take(demand)
            assert len(taken) == 1 or rows_of(taken) <= demand
            seen += [m.data for m in taken]
        assert seen == list(range(len(offered)))

    asyncio.run(law())
