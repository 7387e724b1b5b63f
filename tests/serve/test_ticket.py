"""Laws of tickets: their holder is told once, in time, and a raising holder harms no other."""

import asyncio
import time

import pytest

from triptych.errors import DeadlineExceeded
from triptych.serve.pipeline.message import Message
from triptych.serve.ticket import ACKNOWLEDGER, Deadlines, Ticket


@pytest.fixture
def anyio_backend():
    return "asyncio"


def ticket(done, deadlines, timeout_s=60.0):
    made = Ticket(done, time.monotonic() + timeout_s, deadlines)
    made.message = Message(b"", ACKNOWLEDGER, made)
    deadlines.add(made)
    return made


@pytest.mark.anyio
async def test_a_late_ticket_says_so_once_and_gives_its_place_up():
    told: asyncio.Queue[object] = asyncio.Queue()
    deadlines = Deadlines()
    late, early = ticket(told.put_nowait, deadlines, 0.02), ticket(told.put_nowait, deadlines)
    assert isinstance(await told.get(), DeadlineExceeded)
    assert late.message.status == "cancelled"
    late.settle(b"too late")
    early.settle(b"in time")
    assert await told.get() == b"in time"
    assert told.empty()


@pytest.mark.anyio
async def test_whoever_cancels_is_told_nothing():
    told: list[object] = []
    cancelled = ticket(told.append, Deadlines())
    cancelled.cancel()
    cancelled.settle(b"answer")
    assert told == []


@pytest.mark.anyio
async def test_a_holder_that_raises_harms_no_other(caplog: pytest.LogCaptureFixture):
    told: list[object] = []

    def broken(_: object) -> None:
        raise RuntimeError("broken")

    deadlines = Deadlines()
    tickets = [ticket(broken, deadlines), ticket(told.append, deadlines)]
    messages = [made.message.put_result(b"answer") for made in tickets]
    ACKNOWLEDGER.ack(messages, [])
    assert told == [b"answer"]
    assert "could not be given" in caplog.text
