"""The pipeline over real worker processes that are killed, hang, are poisoned: no accepted work is lost."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from triptych.errors import DeadlineExceeded, InputError, Poison, ServeError
from triptych.serve.brokers.memory import MemoryBroker
from triptych.serve.pipeline.handler import Handler
from triptych.serve.pipeline.options import BatcherOptions, PipelineOptions
from triptych.serve.pipeline.pipeline import Pipeline
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.pool import WorkerPool

pytestmark = pytest.mark.anyio
PROGRAMS = {"PYTHONPATH": str(Path(__file__).parents[1] / "serve" / "supervise")}


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


class Pooled(Handler):
    """Has batches computed by a pool."""

    def __init__(self, pool):
        self.pool = pool

    async def capacity(self, batcher):
        await self.pool.idle()

    async def handle_batch(self, batcher, messages, info):
        answers = await self.pool.run([m.data for m in messages])
        for message, answer in zip(messages, answers, strict=True):
            if isinstance(answer, Failure):
                message.failed(answer)
            else:
                message.put_result(answer)


@asynccontextmanager
async def serving(size=2, batch_size=16, **options):
    pool = WorkerPool("integer_work:make", None, size, environment=PROGRAMS, **options)
    await pool.start()
    broker = MemoryBroker()
    batchers = {"default": BatcherOptions(concurrency=size, batch_size=batch_size)}
    pipeline = Pipeline(Pooled(pool), broker, PipelineOptions(batchers=batchers))
    await pipeline.start()
    try:
        yield broker, pipeline, pool
    finally:
        await pipeline.stop(5.0)
        await pool.stop(5.0)


async def ask_all(broker, words):
    return await asyncio.gather(*(broker.ask(word) for word in words), return_exceptions=True)


def numbers(n):
    return [str(i).encode() for i in range(n)]


def doubles(n):
    return [str(2 * i).encode() for i in range(n)]


async def test_a_worker_killed_in_mid_batch_costs_no_caller_anything(signpost):
    async with serving() as (broker, pipeline, _):
        asking = asyncio.create_task(ask_all(broker, [f"hold-once {signpost.path}".encode(), *numbers(100)]))
        os.kill(await signpost.reached(), signal.SIGKILL)
        assert await asking == [b"done", *doubles(100)]
        statistics = pipeline.statistics()
        assert statistics.failed == 0
        assert statistics.redelivered >= 1


async def test_a_worker_that_hangs_costs_no_caller_anything(signpost):
    async with serving(batch_timeout_s=0.3) as (broker, _, pool):
        asking = asyncio.create_task(ask_all(broker, [f"hold-once {signpost.path}".encode(), *numbers(40)]))
        os.kill(await signpost.reached(), signal.SIGSTOP)
        assert await asking == [b"done", *doubles(40)]
        assert pool.statistics().hangs == 1


async def test_poison_is_found_among_innocents_who_are_all_answered():
    async with serving(max_restarts=1, max_seconds=60.0) as (broker, pipeline, pool):
        words = [*numbers(20), b"exit 3", *numbers(20)]
        answers = await ask_all(broker, words)
        assert isinstance(answers[20], Poison)
        assert [*answers[:20], *answers[21:]] == doubles(20) * 2
        assert pipeline.statistics().poisoned == 1
        assert (
            3 <= pool.statistics().deaths <= 6
        )  # halves of at most 16, then alone; the budget of 1 is unspent
        assert await broker.ask(b"1") == b"2"


async def test_input_that_raises_fails_alone():
    async with serving() as (broker, _, pool):
        answers = await ask_all(broker, [*numbers(5), b"raise", b"fail", *numbers(5)])
        assert [*answers[:5], *answers[7:]] == doubles(5) * 2
        assert isinstance(answers[5], ServeError)
        assert isinstance(answers[6], InputError)
        assert pool.statistics().deaths == 0


async def test_kills_at_random_moments_under_load_lose_nothing_and_mix_up_nothing():
    async with serving(max_restarts=100) as (broker, pipeline, pool):
        kills = iter([(700, 0), (1500, 1), (2600, 0), (3900, 1)])  # after so many answers, which worker
        answered, (moment, slot) = 0, next(kills)

        async def load(start):
            nonlocal answered, moment, slot
            for i in range(start, start + 500):
                answer = await broker.ask(str(i).encode())
                assert answer == str(2 * i).encode()
                answered += 1
                if answered >= moment and pool.workers()[slot].pid:
                    os.kill(pool.workers()[slot].pid, signal.SIGKILL)
                    moment, slot = next(kills, (10**9, 0))

        await asyncio.gather(*(load(1000 * i) for i in range(16)))
        statistics = pipeline.statistics()
        assert statistics.failed == 0
        assert statistics.accepted == statistics.succeeded
        assert pool.statistics().deaths == 4


async def test_work_that_waits_for_a_hung_worker_expires_on_time(signpost):
    async with serving(size=1) as (broker, _, pool):
        held = asyncio.create_task(broker.ask(f"hold-once {signpost.path}".encode()))
        pid = await signpost.reached()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(DeadlineExceeded):
            await broker.ask(b"1", deadline_s=began_s + 0.1)
        assert loop.time() - began_s < 1.0
        assert len(broker) == 0
        os.kill(pid, signal.SIGKILL)
        assert await held == b"done"
        assert pool.statistics().payloads == 2


async def test_a_batch_larger_than_a_frame_harms_no_worker_and_only_what_is_too_large_alone_fails(
    monkeypatch,
):
    monkeypatch.setattr("triptych.serve.supervise.link.MAX_BODY_BYTES", 1000)
    wide = [word.ljust(600) for word in numbers(8)]
    async with serving(size=1) as (broker, _, pool):
        *answers, last = await ask_all(broker, [*wide, b"9".ljust(2000)])
        assert answers == doubles(8)
        assert isinstance(last, InputError)
        assert "at most 1000" in str(last)
        with pytest.raises(InputError, match="on its way"):
            await anext(pool.stream(b"count 3".ljust(2000)))
        assert pool.statistics().deaths == 0
