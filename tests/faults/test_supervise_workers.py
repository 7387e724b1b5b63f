"""What becomes of work, streams and callers when workers are killed, stopped, torn or never start."""

import asyncio
import os
import signal
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from triptych.errors import (
    DeadlineExceeded,
    Draining,
    InputError,
    Overloaded,
    Poison,
    ServeError,
    SupervisorFailed,
    WorkerDied,
)
from triptych.serve.supervise.pool import WorkerPool

pytestmark = pytest.mark.anyio
PROGRAMS = {"PYTHONPATH": str(Path(__file__).parents[1] / "serve" / "supervise")}


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


class Events(list):
    """The events of a pool; one can wait for a kind to have come `times` times."""

    def __init__(self):
        super().__init__()
        self.came = asyncio.Event()

    def __call__(self, event):
        self.append(event)
        self.came.set()

    def count_of(self, kind):
        return sum(event.kind == kind for event in self)

    async def until(self, kind, times=1):
        while self.count_of(kind) < times:
            self.came.clear()
            await self.came.wait()


@asynccontextmanager
async def running(size=1, args=None, **options):
    events = Events()
    pool = WorkerPool("integer_work:make", args, size, environment=PROGRAMS, on_event=events, **options)
    await pool.start()
    try:
        yield pool, events
    finally:
        await pool.stop(5.0)


async def read(stream):
    return b"".join([piece async for piece in stream])


async def test_answers_come_in_the_order_of_the_payloads_and_failures_stay_alone():
    async with running() as (pool, _):
        first, failure, last = await pool.run([b"1", b"fail", b"2"])
        assert (first, last) == (b"2", b"4")
        assert isinstance(failure.to_error(), InputError)
        with pytest.raises(ServeError, match="ValueError"):
            await pool.run([b"1", b"raise"])
        assert await pool.run([b"3"]) == [b"6"]
        assert pool.statistics().deaths == 0


async def test_a_large_answer_and_a_large_question_arrive_whole():
    async with running() as (pool, _):
        (answer,) = await pool.run([b"bytes 5000000"])
        assert answer == b"x" * 5_000_000
        assert await pool.run([b" " * 5_000_000 + b"4"]) == [b"8"]


async def test_a_worker_killed_in_mid_batch_fails_that_batch_only_and_comes_back(signpost):
    async with running(max_in_flight=2) as (pool, events):
        held = asyncio.create_task(pool.run([f"hold {signpost.path}".encode()]))
        pid = await signpost.reached()
        waiting = asyncio.create_task(pool.run([b"21"]))  # in the same worker, not begun
        await asyncio.sleep(0)
        assert pool.workers()[0].in_flight == 2
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await held
        assert await waiting == [b"42"]
        assert events.count_of("redispatched") == 1
        info = pool.workers()[0]
        assert info.restarts == 1
        assert info.pid != pid


async def test_a_reply_torn_by_death_is_dropped():
    async with running() as (pool, _):
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await pool.run([b"tear"])
        assert await pool.run([b"1"]) == [b"2"]


async def test_a_stopped_worker_is_killed_after_the_batch_timeout(signpost):
    async with running(batch_timeout_s=0.2) as (pool, events):
        held = asyncio.create_task(pool.run([f"hold {signpost.path}".encode()]))
        os.kill(await signpost.reached(), signal.SIGSTOP)
        with pytest.raises(WorkerDied, match="silent for"):
            await held
        assert events.count_of("hung") == 1
        assert await pool.run([b"1"]) == [b"2"]


async def test_each_worker_answers_its_own_probe_and_a_stopped_one_is_replaced():
    async with running(size=2, batch_timeout_s=0.5) as (pool, events):
        assert await pool.probe([b"1"], timeout_s=10.0) == {0: "ok", 1: "ok"}
        os.kill(pool.workers()[1].pid, signal.SIGSTOP)
        assert await pool.probe([b"1"], timeout_s=0.1) == {0: "ok", 1: "late"}
        assert pool.workers()[1].in_flight == 1
        assert await pool.probe([b"1"], timeout_s=0.1) == {0: "ok", 1: "late"}
        assert pool.workers()[1].in_flight == 1
        assert await pool.probe([b"1"], timeout_s=10.0) == {0: "ok", 1: "gone"}
        await events.until("ready", 3)
        assert await pool.probe([b"1"], timeout_s=10.0) == {0: "ok", 1: "ok"}


async def test_a_probe_that_fails_says_so():
    async with running(size=1) as (pool, _):
        assert await pool.probe([b"fail"], timeout_s=10.0) == {0: "failed"}


async def test_kills_from_outside_never_end_the_pool():
    async with running(size=1, max_restarts=0, max_seconds=60.0) as (pool, events):
        for ready in range(2, 5):
            os.kill(pool.workers()[0].pid, signal.SIGKILL)
            await events.until("restarted", 2 * ready - 3)
            os.kill(pool.workers()[0].pid, signal.SIGKILL)  # also while it is still starting
            await events.until("ready", ready)
            assert await pool.run([b"1"]) == [b"2"]
        assert events.count_of("escalated") == 0


async def test_deaths_caused_by_work_do_not_spend_the_restart_budget():
    async with running(max_restarts=1, max_seconds=60.0) as (pool, _):
        for _ in range(4):
            with pytest.raises(WorkerDied, match="exit code 3"):
                await pool.run([b"exit 3"])
        assert await pool.run([b"1"]) == [b"2"]


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


async def test_deaths_leave_no_descriptor_and_no_zombie_behind():
    before = children()  # of this test run, not of the pool
    async with running() as (pool, events):
        descriptors = len(os.listdir("/proc/self/fd"))
        for number in range(3):
            with pytest.raises(WorkerDied):
                await pool.run([b"exit 3"])
            await events.until("ready", 2 + number)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert children() - before == {pool.workers()[0].pid}


async def test_a_crash_loop_at_start_backs_off_then_gives_up_with_the_cause():
    events = Events()
    pool = WorkerPool(
        "integer_work:make", {"fail": "no such bundle"}, environment=PROGRAMS, on_event=events, max_restarts=2
    )
    waiting = asyncio.create_task(pool.start())
    with pytest.raises(SupervisorFailed, match="no such bundle"):
        await waiting
    assert events.count_of("died") == 3
    assert events.count_of("escalated") == 1
    with pytest.raises(SupervisorFailed):
        await pool.run([b"1"])
    assert isinstance((await pool.wait()).exception, SupervisorFailed)


async def test_a_worker_that_is_not_ready_in_time_is_killed():
    pool = WorkerPool(
        "integer_work:make", {"exit": 0}, environment=PROGRAMS, start_timeout_s=0.001, max_restarts=0
    )
    with pytest.raises(SupervisorFailed, match="not ready after"):
        await pool.start()


async def test_a_stream_continues_in_another_worker_with_the_same_bytes_and_no_duplicates(tmp_path):
    async with running(size=2) as (pool, events):
        calm = await read(pool.stream(b"count 20"))
        stormy = await read(pool.stream(f"die-once-at 20 11 {tmp_path}/once".encode()))
        assert stormy == calm
        assert events.count_of("redispatched") == 1


async def test_many_streams_survive_a_kill_from_outside():
    async with running(size=2, stream_slots=8) as (pool, _):
        streams = [pool.stream(b"count 400") for _ in range(12)]
        first = [await anext(stream) for stream in streams[:8]]
        os.kill(pool.workers()[0].pid, signal.SIGKILL)
        rest = await asyncio.gather(*map(read, streams))
        answers = [a + b for a, b in zip(first, rest, strict=False)] + rest[8:]
        assert set(answers) == {b"".join(f"{i} ".encode() for i in range(400))}


async def test_a_stream_that_kills_every_worker_is_poison_and_its_neighbours_finish():
    async with running(size=1, max_restarts=1, max_seconds=60.0) as (pool, _):
        neighbour = pool.stream(b"count 300")
        poison = pool.stream(b"die-at 9 4")
        with pytest.raises(Poison, match="3 times in a row"):
            await read(poison)
        assert len((await read(neighbour)).split()) == 300
        assert pool.statistics().deaths == 3


async def test_closing_a_stream_frees_its_slot_within_a_step():
    async with running(stream_slots=1) as (pool, _):
        async with aclosing(pool.stream(b"forever")) as stream:
            await anext(stream)
            assert await pool.run([b"streams"]) == [b"1"]  # batches run between its steps
        assert await pool.run([b"streams"]) == [b"0"]
        assert await read(pool.stream(b"count 2")) == b"0 1 "


async def test_a_stream_may_be_refused_or_fail_and_harms_no_other():
    async with running() as (pool, _):
        with pytest.raises(InputError, match="asked to refuse"):
            await read(pool.stream(b"refuse"))
        stream = pool.stream(b"fail-at 2")
        assert [await anext(stream), await anext(stream)] == [b"0 ", b"1 "]
        with pytest.raises(InputError, match="asked to fail"):
            await anext(stream)
        assert await read(pool.stream(b"count 1")) == b"0 "


async def test_a_reader_too_slow_loses_its_stream_and_slows_nobody():
    async with running(stream_buffer=8) as (pool, _):
        slow = pool.stream(b"forever")
        assert await read(pool.stream(b"count 8")) != b""
        while not slow.ended:
            await pool.run([b"1"])
        with pytest.raises(Overloaded, match="8 pieces behind"):
            await read(slow)


async def test_deadlines_end_waiting_work_running_work_and_streams(signpost):
    async with running(stream_slots=1) as (pool, _):
        now_s = asyncio.get_running_loop().time()
        stream = pool.stream(b"forever", deadline_s=now_s + 0.05)
        with pytest.raises(DeadlineExceeded):
            await read(stream)
        held = asyncio.create_task(
            pool.run([f"hold {signpost.path}".encode()], deadline_s=asyncio.get_running_loop().time() + 0.2)
        )
        pid = await signpost.reached()
        with pytest.raises(DeadlineExceeded):
            await pool.run([b"1"], deadline_s=asyncio.get_running_loop().time() + 0.05)
        with pytest.raises(DeadlineExceeded):
            await held
        assert pool.statistics().waiting_batches == 0
        os.kill(pid, signal.SIGKILL)


async def test_waiting_work_is_bounded_and_cancelled_work_makes_room(signpost):
    async with running(max_waiting=1) as (pool, _):
        held = asyncio.create_task(pool.run([f"hold {signpost.path}".encode()]))
        pid = await signpost.reached()
        waiting = asyncio.create_task(pool.run([b"1"]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.run([b"2"])
        waiting.cancel()
        await asyncio.wait([waiting])
        assert pool.statistics().waiting_batches == 0
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await held


async def test_idle_returns_when_a_worker_has_room_and_wakes_one_after_the_other(signpost):
    async with running() as (pool, _):
        await pool.idle()
        held = asyncio.create_task(pool.run([f"hold-once {signpost.path}".encode()]))
        pid = await signpost.reached()
        order = []

        async def waiter(name):
            await pool.idle()
            order.append(name)

        waiters = [asyncio.create_task(waiter(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert order == []
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await held
        await asyncio.gather(*waiters)
        assert order == ["a", "b", "c"]


async def test_stop_lets_held_work_finish_and_refuses_new_work():
    async with running() as (pool, events):
        stream = pool.stream(b"count 50")
        batch = asyncio.create_task(pool.run([b"5"]))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(pool.stop(30.0))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await pool.run([b"1"])
        assert await batch == [b"10"]
        assert len((await read(stream)).split()) == 50
        assert (await stopping).normal
        assert events.count_of("died") == 0


async def test_a_brutal_stop_ends_every_waiting_caller(signpost):
    async with running() as (pool, _):
        held = asyncio.create_task(pool.run([f"hold {signpost.path}".encode()]))
        await signpost.reached()
        waiting = asyncio.create_task(pool.run([b"1"]))
        stream = pool.stream(b"count 5")
        await pool.stop("brutal_kill")
        for task in (held, waiting):
            with pytest.raises(ServeError):
                await task
        with pytest.raises(Draining):
            await read(stream)


async def test_workers_give_way_to_the_process_that_feeds_them():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    async with running(size=1, nice=3) as (pool, _):
        (worker,) = pool.workers()
        threads = os.listdir(f"/proc/{worker.pid}/task")
        assert {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in threads} == {min(19, own + 3)}
