"""Laws of tasks as children."""

import asyncio

import pytest

from triptych.serve.supervise.task import TaskChild

pytestmark = pytest.mark.anyio


async def returns():
    pass


async def raises():
    raise ValueError("no")


async def test_a_task_that_returns_ends_normally():
    assert (await TaskChild(returns(), "t").wait()).normal


async def test_a_task_that_raises_ends_with_its_exception():
    end = await TaskChild(raises(), "t").wait()
    assert not end.normal
    assert end.reason == "ValueError: no"


async def test_stop_cancels_and_waits_for_the_end():
    ended = asyncio.Event()

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    child = TaskChild(forever(), "t")
    await asyncio.sleep(0)
    await child.stop()
    assert ended.is_set()


async def test_a_task_that_will_not_end_is_left_behind_and_said_so():
    release = asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    child = TaskChild(stubborn(), "t")
    await asyncio.sleep(0)
    assert "still running" in (await child.stop(0.01)).reason
    release.set()
    await child.wait()
