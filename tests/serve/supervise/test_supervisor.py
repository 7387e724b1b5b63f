"""Laws of supervisors, with children made of futures and a clock that the test turns."""

import asyncio

import pytest

from triptych.errors import ConfigError, SupervisorFailed
from triptych.serve.supervise.intensity import Backoff
from triptych.serve.supervise.spec import ChildSpec, Exit
from triptych.serve.supervise.supervisor import Supervisor

pytestmark = pytest.mark.anyio


class Stage:
    """Supervised children, a clock, and the diary of what happened to them."""

    def __init__(self):
        self.now_s = 100.0
        self.slept = []
        self.diary = []
        self.running = {}
        self.events = []
        self.changed = asyncio.Event()
        self.failing_starts = {}

    def spec(self, id, **options):
        async def start():
            if self.failing_starts.get(id, 0):
                self.failing_starts[id] -= 1
                raise OSError(f"{id} cannot start")
            self.diary.append(f"+{id}")
            self.running[id] = Doll(self, id)
            self.changed.set()
            return self.running[id]

        return ChildSpec(id, start, **options)

    def supervisor(self, ids, **options):
        async def sleep(delay_s):
            self.slept.append(delay_s)
            self.now_s += delay_s

        specs = [self.spec(id) if isinstance(id, str) else id for id in ids]
        return Supervisor(
            specs, clock=lambda: self.now_s, sleep=sleep, on_event=self.events.append, **options
        )

    async def diary_is(self, *lines):
        """Return once the diary has as many lines; then they must be these."""
        while len(self.diary) < len(lines):
            self.changed.clear()
            await self.changed.wait()
        assert self.diary == list(lines)


class Doll:
    """A child that ends when it is told to."""

    pid = None

    def __init__(self, stage, id):
        self.stage, self.id = stage, id
        self.end = asyncio.get_running_loop().create_future()

    def die(self, end=None):
        self.end.set_result(end or Exit(code=1))

    async def wait(self):
        return await asyncio.shield(self.end)

    async def stop(self, shutdown):
        self.stage.diary.append(f"-{self.id}" if shutdown != "brutal_kill" else f"!{self.id}")
        if not self.end.done():
            self.end.set_result(Exit(code=0))
        return await self.wait()


async def test_children_start_in_order_and_stop_in_reverse():
    stage = Stage()
    supervisor = stage.supervisor("abc")
    await supervisor.start()
    assert [child.state for child in supervisor.which_children()] == ["running"] * 3
    await supervisor.stop()
    assert stage.diary == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert supervisor.count_children().active == 0
    assert (await supervisor.wait()).normal


@pytest.mark.parametrize(
    ("strategy", "after"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
async def test_a_death_takes_along_whom_the_strategy_says_in_order(strategy, after):
    stage = Stage()
    supervisor = stage.supervisor("abc", strategy=strategy)
    await supervisor.start()
    stage.running["b"].die()
    await stage.diary_is("+a", "+b", "+c", *after)
    await supervisor.stop()


@pytest.mark.parametrize(
    ("restart", "end", "restarted"),
    [
        ("permanent", Exit(code=0), True),
        ("transient", Exit(code=0), False),
        ("transient", Exit(code=1), True),
        ("transient", Exit(signal=9), True),
        ("temporary", Exit(code=1), False),
    ],
)
async def test_restart_type_decides_who_comes_back(restart, end, restarted):
    stage = Stage()
    supervisor = stage.supervisor([stage.spec("a", restart=restart), "z"])
    await supervisor.start()
    stage.running["a"].die(end)
    stage.running["z"].die()  # handled after it, so its return shows that `a` has been dealt with
    await stage.diary_is(*(["+a", "+z", "+a", "+z"] if restarted else ["+a", "+z", "+z"]))
    assert supervisor.which_children()[0].state == ("running" if restarted else "stopped")
    await supervisor.stop()


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_child_that_goes_with_another_does_not_come_back(strategy):
    stage = Stage()
    supervisor = stage.supervisor(["a", stage.spec("b", restart="temporary"), "c"], strategy=strategy)
    await supervisor.start()
    stage.running["a"].die()
    await stage.diary_is("+a", "+b", "+c", "-c", "-b", "+a", "+c")
    assert [child.state for child in supervisor.which_children()] == ["running", "stopped", "running"]
    await supervisor.stop()


async def test_who_is_stopped_while_it_starts_leaves_nobody_running():
    stage, may_start = Stage(), asyncio.Event()

    async def start_slowly():
        await may_start.wait()
        return await stage.spec("b").start()

    supervisor = stage.supervisor(["a", ChildSpec("b", start_slowly), "c"])
    starting = asyncio.create_task(supervisor.start())
    await stage.diary_is("+a")
    assert await supervisor.stop() == Exit(code=0)
    may_start.set()
    with pytest.raises(ConfigError, match="has been stopped"):
        await starting
    assert stage.diary == ["+a", "-a", "+b", "-b"]


async def test_one_death_too_many_in_the_window_ends_the_supervisor_with_its_cause():
    stage = Stage()
    supervisor = stage.supervisor("ab", max_restarts=2, max_seconds=5)
    await supervisor.start()
    running = asyncio.create_task(supervisor.wait())
    for number in range(3):
        stage.running["b"].die(Exit(exception=ValueError(f"death {number}")))
        if number < 2:
            await stage.diary_is("+a", "+b", *["+b"] * (number + 1))
    end = await running
    assert isinstance(end.exception, SupervisorFailed)
    assert "death 2" in str(end.exception)
    assert "at most 2 restarts in 5 s" in str(end.exception)
    assert stage.diary[-1] == "-a"
    assert [event.kind for event in stage.events][-2:] == ["died", "escalated"]


async def test_deaths_spread_wider_than_the_window_are_forgiven():
    stage = Stage()
    supervisor = stage.supervisor("a", max_restarts=1, max_seconds=5)
    await supervisor.start()
    for number in range(10):
        stage.running["a"].die()
        await stage.diary_is("+a", *["+a"] * (number + 1))
        stage.now_s += 5
    assert supervisor.count_children().restarts == 10
    await supervisor.stop()


async def test_uncharged_deaths_never_escalate():
    stage = Stage()
    supervisor = stage.supervisor("a", max_restarts=1)
    await supervisor.start()
    for number in range(10):
        stage.running["a"].die(Exit(signal=9, charged=False))
        await stage.diary_is("+a", *["+a"] * (number + 1))
    await supervisor.stop()


async def test_backoff_doubles_while_deaths_go_on():
    stage = Stage()
    supervisor = stage.supervisor(
        "a", max_restarts=9, max_seconds=99, backoff=Backoff(first_s=0.1, longest_s=0.5)
    )
    await supervisor.start()
    for number in range(5):
        stage.running["a"].die()
        await stage.diary_is("+a", *["+a"] * (number + 1))
    assert stage.slept == [0.0, 0.1, 0.2, 0.4, 0.5]
    await supervisor.stop()


async def test_a_start_that_fails_counts_as_a_death_and_later_children_wait_for_it():
    stage = Stage()
    stage.failing_starts = {"b": 2}
    supervisor = stage.supervisor("abc", max_restarts=2)
    await supervisor.start()
    assert stage.diary == ["+a", "+b", "+c"]
    await supervisor.stop()


async def test_a_crash_loop_at_start_fails_the_start_and_leaves_nobody_running():
    stage = Stage()
    stage.failing_starts = {"b": 99}
    with pytest.raises(SupervisorFailed, match="b cannot start"):
        await stage.supervisor("abc", max_restarts=2).run()
    assert stage.diary == ["+a", "-a"]
    assert stage.slept == [0.0, 0.1]


async def test_run_ends_quietly_after_stop():
    stage = Stage()
    supervisor = stage.supervisor("a")
    running = asyncio.create_task(supervisor.run())
    await stage.diary_is("+a")
    await supervisor.stop()
    await running


async def test_a_nested_supervisor_that_gives_up_is_restarted_by_its_parent():
    stage = Stage()
    inner = []

    async def start():
        inner.append(stage.supervisor("a", max_restarts=0, name="inner"))
        await inner[-1].start()
        return inner[-1]

    outer = stage.supervisor([ChildSpec("inner", start)], name="outer", max_restarts=1)
    await outer.start()
    stage.running["a"].die()
    await stage.diary_is("+a", "+a")
    stage.running["a"].die()
    end = await outer.wait()
    assert isinstance(end.exception, SupervisorFailed)
    assert len(inner) == 2


async def test_what_has_given_up_cannot_be_started_again_and_repeats_its_cause():
    stage = Stage()
    supervisor = stage.supervisor("a", max_restarts=0)
    await supervisor.start()
    stage.running["a"].die(Exit(code=3))
    await supervisor.wait()
    with pytest.raises(SupervisorFailed, match="exit code 3"):
        await supervisor.start()
    assert stage.diary == ["+a"]


async def test_brutal_kill_is_passed_on():
    stage = Stage()
    supervisor = stage.supervisor("ab")
    await supervisor.start()
    await supervisor.stop("brutal_kill")
    assert stage.diary == ["+a", "+b", "!b", "!a"]


def test_two_children_of_one_name_are_refused():
    async def start():
        raise AssertionError

    with pytest.raises(ConfigError, match="ids that are all different"):
        Supervisor([ChildSpec("a", start), ChildSpec("a", start)])


async def test_a_listener_that_raises_harms_nobody(caplog):
    stage = Stage()

    class Deaf(list):
        def append(self, event):
            raise RuntimeError(f"cannot hear of {event.kind}")

    stage.events = Deaf()
    supervisor = stage.supervisor("a")
    await supervisor.start()
    stage.running["a"].die()
    await stage.diary_is("+a", "+a")
    await supervisor.stop()
    assert "cannot hear of died" in caplog.text


async def test_a_fault_in_a_childs_own_stop_ends_the_supervisor_loudly():
    stage = Stage()
    supervisor = stage.supervisor("ab", strategy="one_for_all")
    await supervisor.start()

    async def stop(_):
        raise RuntimeError("cannot stop")

    stage.running["b"].stop = stop
    stage.running["a"].die()
    end = await supervisor.wait()
    assert "cannot stop" in end.reason
    stage.running["b"].stop = Doll.stop.__get__(stage.running["b"])
    await supervisor.stop()


REFUSED = Exit(code=1, detail="a file is damaged", charged=False, refused=True)


async def test_who_refuses_to_start_is_tried_ever_more_rarely_and_never_charged():
    stage = Stage()
    supervisor = stage.supervisor(["a"], max_restarts=1)
    await supervisor.start()
    for tries in range(2, 9):
        stage.running["a"].die(REFUSED)
        await stage.diary_is(*["+a"] * tries)
    assert stage.slept == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    stage.running["a"].die()  # it had started: its next refusal is the first again
    await stage.diary_is(*["+a"] * 9)
    stage.running["a"].die(REFUSED)
    await stage.diary_is(*["+a"] * 10)
    assert stage.slept[7:] == [0.0, 0.5]
    await supervisor.stop()


async def test_while_one_waits_to_be_tried_again_others_are_restarted_and_it_can_be_stopped():
    stage = Stage()
    supervisor = stage.supervisor(["a", "b"])
    await supervisor.start()
    waiting = asyncio.Event()

    async def sleep(delay_s):
        if delay_s:
            waiting.set()
            await asyncio.Event().wait()

    supervisor._sleep = sleep
    stage.running["a"].die(REFUSED)
    await waiting.wait()
    assert [child.state for child in supervisor.which_children()] == ["restarting", "running"]
    stage.running["b"].die()
    await stage.diary_is("+a", "+b", "+b")
    await supervisor.stop()
    assert stage.diary == ["+a", "+b", "+b", "-b"]
