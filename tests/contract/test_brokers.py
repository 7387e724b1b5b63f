"""What every broker of the durable lane promises: in memory, in a file, and through a real RabbitMQ."""

from __future__ import annotations

import asyncio
import operator
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from triptych.errors import ConflictError, NotFoundError, Overloaded
from triptych.serve.brokers.broker import Intake, Source
from triptych.serve.brokers.job import Job, Record
from triptych.serve.brokers.options import BrokerOptions, RabbitOptions
from triptych.serve.brokers.rabbit_intake import RabbitIntake
from triptych.serve.brokers.rabbit_source import RabbitSource
from triptych.serve.brokers.sqlite import SqliteBroker
from triptych.serve.brokers.table import IsSame

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
def kind(request):
    return request.param


@pytest.fixture
def anyio_backend(kind):
    return "asyncio", {"use_uvloop": kind != "memory"}


class Ends:
    """Both ends of one broker, and how to take the source away from who holds its leases."""

    def __init__(self, intake: Intake, source: Source, lose: Callable[[], Any]) -> None:
        self.intake, self.source, self.lose = intake, source, lose

    async def publish(self, *bodies: bytes) -> list[str]:
        return [await self.intake.publish(job(body)) for body in bodies]

    async def take(self, n: int) -> list[Any]:
        """Exactly `n` leases."""
        taken: list[Any] = []
        async with asyncio.timeout(20):
            while len(taken) < n:
                taken += await self.source.take(n - len(taken))
        return taken

    async def until(self, id: str, *states: str) -> Record:
        """The record once it is in one of `states`: between machines that takes a moment."""
        async with asyncio.timeout(20):
            while (record := await self.intake.get(id)).state not in states:
                await asyncio.sleep(0.005)
        return record


async def nothing() -> None:
    """What is to be done to lose a lease that ends by itself."""


def job(body: bytes, key: str = "") -> Job:
    return Job(secrets.token_hex(8), body, key)


@pytest.fixture
def opened(kind, request, tmp_path):
    """Open a broker of this kind."""
    url = request.getfixturevalue("rabbitmq").url if kind == "rabbitmq" else ""

    @asynccontextmanager
    async def open(is_same: IsSame = operator.eq, **fields: Any) -> AsyncIterator[Ends]:
        options, path = BrokerOptions(**fields), tmp_path / "jobs.db" if kind == "sqlite" else ":memory:"
        store = await SqliteBroker(path, options, is_same).start()
        if kind != "rabbitmq":
            yield Ends(store, store, nothing)  # a lease is lost when its time is over
            await store.close()
            return
        rabbit = RabbitOptions(prefix=f"test-{secrets.token_hex(4)}", backoff_s=0.05)
        intake = await RabbitIntake(url, store, options, rabbit).start()
        await intake.link.wait_up(10)  # both at once would both find the queues missing, and send twice
        source = await RabbitSource(url, options, rabbit).start()
        await source.link.wait_up(10)

        async def lose() -> None:
            source.link._connection.give_up("the test cut it")

        yield Ends(intake, source, lose)
        await source.close()
        await intake.close()

    return open


async def test_a_job_goes_through_and_its_result_is_kept(opened):
    async with opened() as ends:
        (id,) = await ends.publish(b"work")
        assert (await ends.intake.get(id)).state == "queued"
        (lease,) = await ends.take(1)
        assert (lease.id, lease.body, lease.deliveries) == (id, b"work", 1)
        await ends.until(id, "running")
        assert await ends.source.ack(lease, b"result")
        record = await ends.until(id, "done")
        assert (record.result, record.deliveries) == (b"result", 1)
        assert record.ended_at_s >= record.submitted_at_s > 0


async def test_many_at_once_are_each_done_exactly_once(opened):
    async with opened(in_flight=50) as ends:
        bodies = [f"{n}".encode() for n in range(300)]
        ids = await asyncio.gather(*(ends.intake.publish(job(body)) for body in bodies))
        taken = []
        while len(taken) < 300:
            leases = await ends.source.take(50)
            taken += leases
            assert all(await asyncio.gather(*(ends.source.ack(lease, lease.body) for lease in leases)))
        assert sorted(lease.body for lease in taken) == sorted(bodies)
        records = [await ends.until(id, "done") for id in ids]
        assert [record.result for record in records] == bodies
        assert (await ends.intake.statistics()).published == 300


async def test_the_oldest_job_is_first(opened):
    async with opened() as ends:
        ids = await ends.publish(b"a", b"b", b"c")
        assert [lease.id for lease in await ends.take(3)] == ids


async def test_one_key_is_one_job(opened):
    async with opened() as ends:
        first = await ends.intake.publish(job(b"work", "key"))
        assert await ends.intake.publish(job(b"work", "key")) == first
        with pytest.raises(ConflictError, match="another job"):
            await ends.intake.publish(job(b"other", "key"))
        last = await ends.intake.publish(job(b"last"))
        assert [lease.id for lease in await ends.take(2)] == [first, last]


async def test_one_key_is_one_job_whatever_of_its_body_does_not_count(opened):
    async with opened(is_same=lambda one, other: one[:4] == other[:4]) as ends:
        first = await ends.intake.publish(job(b"work of yesterday", "key"))
        assert await ends.intake.publish(job(b"work of today", "key")) == first
        with pytest.raises(ConflictError, match="another job"):
            await ends.intake.publish(job(b"other", "key"))
        (lease,) = await ends.take(1)
        assert (lease.id, lease.body) == (first, b"work of yesterday")


async def test_no_more_than_in_flight_are_out(opened):
    async with opened(in_flight=3) as ends:
        await ends.publish(*[b"work"] * 5)
        leases = await ends.take(3)
        more = asyncio.create_task(ends.take(1))
        await asyncio.wait([more], timeout=0.2)
        assert not more.done()
        await ends.source.ack(leases[0], b"")
        assert len(await more) == 1


async def test_what_is_given_back_comes_again_and_says_so(opened):
    async with opened() as ends:
        (id,) = await ends.publish(b"work")
        (lease,) = await ends.take(1)
        await ends.source.nack(lease)
        (again,) = await ends.take(1)
        assert (again.id, again.deliveries) == (id, 2)
        assert not await ends.source.ack(lease, b"of the lost lease")
        assert await ends.source.ack(again, b"result")
        record = await ends.until(id, "done")
        assert (record.result, record.deliveries) == (b"result", 2)


async def test_what_is_handed_out_too_often_is_dead_until_it_is_requeued(opened):
    async with opened(max_deliveries=3) as ends:
        (id,) = await ends.publish(b"work")
        for delivery in (1, 2, 3):
            (lease,) = await ends.take(1)
            assert lease.deliveries == delivery
            await ends.source.nack(lease)
        taking = asyncio.create_task(ends.take(1))  # whoever asks next finds out
        await ends.until(id, "dead")
        assert [record.id for record in await ends.intake.dead_letters()] == [id]
        assert (await ends.intake.statistics()).dead_lettered == 1
        assert (await ends.intake.requeue(id)).state in ("queued", "running")
        (lease,) = await taking
        assert lease.deliveries == 1
        await ends.source.ack(lease, b"result")
        await ends.until(id, "done")
        with pytest.raises(ConflictError, match="done"):
            await ends.intake.requeue(id)


async def test_what_died_again_comes_last_of_the_dead(opened):
    async with opened() as ends:
        ids = await ends.publish(b"first", b"second", b"third")
        for lease in sorted(await ends.take(3), key=lambda lease: ids.index(lease.id)):
            await ends.source.reject(lease, "three workers died of it")
            await ends.until(lease.id, "dead")
        await ends.intake.requeue(ids[0])
        (lease,) = await ends.take(1)
        await ends.source.reject(lease, "three workers died of it again")
        await ends.until(ids[0], "dead")
        assert [record.id for record in await ends.intake.dead_letters()] == [*ids[1:], ids[0]]
        assert [record.id for record in await ends.intake.dead_letters(1)] == [ids[1]]


async def test_what_is_rejected_is_dead_with_the_reason(opened):
    async with opened() as ends:
        (id,) = await ends.publish(b"work")
        (lease,) = await ends.take(1)
        await ends.source.reject(lease, "three workers died of it")
        assert "three workers died" in (await ends.until(id, "dead")).reason


async def test_a_failure_is_an_end_with_a_reason(opened):
    async with opened() as ends:
        (id,) = await ends.publish(b"work")
        (lease,) = await ends.take(1)
        assert await ends.source.ack(lease, b"why", failed=True)
        assert (await ends.until(id, "failed")).result == b"why"
        assert not await ends.source.ack(lease, b"twice")


async def test_a_cancelled_job_stays_cancelled(opened):
    async with opened() as ends:
        (id,) = await ends.publish(b"work")
        (lease,) = await ends.take(1)
        assert (await ends.intake.cancel(id)).state == "cancelled"
        await ends.source.ack(lease, b"result")
        (other,) = await ends.publish(b"other")
        (lease,) = await ends.take(1)
        await ends.source.ack(lease, b"result")
        await ends.until(other, "done")
        record = await ends.intake.get(id)
        assert (record.state, record.result) == ("cancelled", b"")
        assert (await ends.intake.cancel(other)).state == "done"


async def test_a_lost_lease_goes_to_somebody_else(opened):
    async with opened(lease_s=0.2) as ends:
        (id,) = await ends.publish(b"work")
        (lease,) = await ends.take(1)
        await ends.lose()
        (again,) = await ends.take(1)
        assert (again.id, again.deliveries) == (id, 2)
        assert not await ends.source.ack(lease, b"late")
        assert not await ends.source.extend(lease)
        assert await ends.source.extend(again)
        assert await ends.source.ack(again, b"result")
        assert (await ends.until(id, "done")).result == b"result"


async def test_a_cancelled_take_loses_nothing(opened):
    async with opened() as ends:
        for delay_s in (0.0, 0.0005, 0.002):
            taking = asyncio.create_task(ends.source.take(1))
            await asyncio.sleep(0)
            publishing = asyncio.create_task(ends.publish(b"work"))
            await asyncio.sleep(delay_s)
            taking.cancel()
            await asyncio.wait([taking])
            (id,) = await publishing
            lease = (await ends.take(1))[0] if taking.cancelled() else taking.result()[0]
            assert lease.id == id
            await ends.source.ack(lease, b"")


async def test_a_full_queue_refuses(opened):
    async with opened(capacity=5) as ends:
        with pytest.raises(Overloaded):
            await ends.publish(*[b"work"] * 50)


async def test_an_unknown_job_is_not_found(opened):
    async with opened() as ends:
        for ask in (ends.intake.get, ends.intake.cancel, ends.intake.requeue):
            with pytest.raises(NotFoundError, match="no job"):
                await ask("nothing")
