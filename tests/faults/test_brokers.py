"""The durable lane when processes are killed, disks fill up, files rot and RabbitMQ goes away."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing, suppress

import aio_pika
import pytest
from aiormq.exceptions import ChannelInvalidStateError, ChannelNotFoundEntity

from triptych.errors import (
    BrokerUnavailable,
    ConfigError,
    NotFoundError,
    StorageFull,
    StoreDamaged,
    TriptychError,
)
from triptych.serve.brokers import store_file
from triptych.serve.brokers.amqp_connection import AmqpConnection
from triptych.serve.brokers.amqp_errors import ERRORS, closing_is_an_error
from triptych.serve.brokers.amqp_link import AmqpLink
from triptych.serve.brokers.job import Job
from triptych.serve.brokers.options import BrokerOptions, RabbitOptions
from triptych.serve.brokers.rabbit_intake import RabbitIntake
from triptych.serve.brokers.rabbit_source import RabbitSource
from triptych.serve.brokers.sqlite import SqliteBroker
from triptych.serve.brokers.topology import RECREATED

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PUBLISHER = """
import asyncio, sys
from triptych.serve.brokers.sqlite import SqliteBroker
from triptych.serve.brokers.job import Job

async def main():
    broker = await SqliteBroker(sys.argv[1]).start()
    async def publish(worker):
        for number in range(10**6):
            id = await broker.publish(Job(f"{worker}-{number}", b"work" * 100))
            print(id, flush=True)
            if number % 3 == 0:
                lease, = await broker.take(1)
                if number % 2:
                    await broker.ack(lease, b"result")
    await asyncio.gather(*(publish(worker) for worker in range(8)))

asyncio.run(main())
"""


OPENER = """
import os, sys
from triptych.serve.brokers import store_file, table

left = int(sys.argv[2])

def dying(function):
    def call(*given, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*given, **named)
    return call

for module, name in ((os, "rename"), (os, "unlink"), (os, "fsync"), (store_file, "copy_row")):
    setattr(module, name, dying(getattr(module, name)))
store_file.connect(sys.argv[1], table.SCHEMA, 2**30).close()
"""


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


def job(body: bytes = b"work", id: str = "") -> Job:
    return Job(id or secrets.token_hex(8), body)


def confirmed_until_killed(path, confirmed: int) -> set[str]:
    """Kill a process that publishes, takes and settles; the jobs it had said were safe."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(confirmed)]
    process.send_signal(signal.SIGKILL)
    lines += [line for line in process.stdout if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    return {line.strip() for line in lines}


@pytest.mark.parametrize("confirmed", [30, 150])
@pytest.mark.parametrize("damage", ["nothing", "log cut short", "log garbled", "log gone"])
async def test_after_a_power_cut_every_confirmed_job_is_there(tmp_path, confirmed, damage):
    path = tmp_path / "jobs.db"
    safe = confirmed_until_killed(path, confirmed)
    wal = tmp_path / "jobs.db-wal"
    size = wal.stat().st_size if wal.exists() else 0
    if damage == "log cut short":
        os.truncate(wal, max(0, size - 100))
    elif damage == "log garbled" and size > 64:
        with wal.open("r+b") as file:
            file.seek(size - 64)
            file.write(os.urandom(64))
    elif damage == "log gone":
        wal.unlink()
        (tmp_path / "jobs.db-shm").unlink()
    broker = await SqliteBroker(path, BrokerOptions(in_flight=10_000)).start()
    states = {id: (await broker.get(id)).state for id in safe}
    assert set(states.values()) <= {"queued", "done"}
    left = {id for id, state in states.items() if state == "queued"}
    taken = {lease.id for lease in await broker.take(10_000)}
    assert left <= taken
    await broker.close()


async def test_what_a_killed_process_held_is_handed_out_again(tmp_path):
    confirmed_until_killed(tmp_path / "jobs.db", 50)
    broker = await SqliteBroker(tmp_path / "jobs.db", BrokerOptions(in_flight=10_000)).start()
    leases = await broker.take(10_000)
    assert any(lease.deliveries == 2 for lease in leases)
    assert (await broker.statistics()).redelivered == sum(lease.deliveries == 2 for lease in leases)
    await broker.close()


async def test_a_damaged_row_is_put_aside_and_the_others_are_served(tmp_path, caplog):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    for number in range(4):
        await broker.publish(job(f"body {number}".encode(), f"job-{number}"))
    lease, *_ = await broker.take(1)
    await broker.ack(lease, b"result of 0")
    await broker.close()
    content = path.read_bytes()
    assert content.count(b"body 2") == content.count(b"result of 0") == 1
    path.write_bytes(content.replace(b"body 2", b"bodyX2").replace(b"result of 0", b"result of X"))
    broker = await SqliteBroker(path).start()
    assert [lease.id for lease in await broker.take(10)] == ["job-1", "job-3"]
    for damaged in ("job-0", "job-2"):
        with pytest.raises(StoreDamaged, match=damaged):
            await broker.get(damaged)
    assert "job-2 is put aside" in caplog.text
    assert (await broker.statistics()).damaged == 1
    await broker.close()


@pytest.mark.parametrize("column", ["id", "key", "state"])
async def test_a_row_of_which_a_text_is_none_any_more_is_put_aside(tmp_path, caplog, column):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    for number in range(3):
        await broker.publish(Job(f"job-{number}", b"work", f"key-{number}"))
    await broker.close()
    content = path.read_bytes()
    row = content.rindex(b"job-1key-1work")
    place = row + {"id": 0, "key": 5, "state": 18}[column]
    assert chr(content[place]) in "jkq"
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    broker = await SqliteBroker(path).start()
    taken = [(await broker.take(1))[0] for _ in range(2)]
    assert [lease.id for lease in taken] == ["job-0", "job-2"]
    assert "is put aside: its row (2)" in caplog.text
    if column != "id":
        with pytest.raises(StoreDamaged, match="job-1"):
            await broker.get("job-1")
    assert await broker.ack(taken[0], b"result")
    await broker.close()
    broker = await SqliteBroker(path).start()
    assert [lease.id for lease in await broker.take(3)] == ["job-2"]
    await broker.close()


async def test_a_file_that_is_no_store_is_refused_by_name(tmp_path):
    path = tmp_path / "jobs.db"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreDamaged, match=r"jobs\.db"):
        SqliteBroker(path)


async def test_what_is_whole_of_a_damaged_file_is_kept(tmp_path, caplog):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    ids = [await broker.publish(job(os.urandom(1000))) for _ in range(60)]
    await broker.close()
    with path.open("r+b") as file:  # a leaf of the index by id, and one page of rows
        pages = [path.read_bytes()[start : start + 4096] for start in range(0, path.stat().st_size, 4096)]
        index = next(n for n, page in enumerate(pages) if n and page[0] == 10 and ids[0].encode() in page)
        rows = next(n for n, page in enumerate(pages) if n and page[0] == 13 and ids[9].encode() in page)
        for page in (index, rows):
            file.seek(page * 4096)
            file.write(bytes(4096))
    broker = await SqliteBroker(path, BrokerOptions(in_flight=100)).start()
    kept = [lease.id for lease in await broker.take(100)]
    assert len(kept) >= 50
    assert set(kept) <= set(ids)
    assert "the damaged file is now" in caplog.text
    await broker.close()


async def damaged_index(path):
    """A store of which only an index cannot be read; its jobs."""
    broker = await SqliteBroker(path).start()
    ids = [await broker.publish(job(b"work" * 100)) for _ in range(8)]
    await broker.close()
    content = bytearray(path.read_bytes())
    starts = range(4096, len(content), 4096)
    index = next(n for n in starts if content[n] == 10 and ids[0].encode() in content[n : n + 4096])
    content[index : index + 4096] = bytes(4096)
    path.write_bytes(content)
    return ids


async def test_a_damaged_store_loses_nothing_whenever_its_rescue_is_killed(tmp_path):
    damaged = tmp_path / "damaged" / "jobs.db"
    ids = await damaged_index(damaged)
    deaths, code = -1, 9
    while code == 9:
        deaths += 1
        path = tmp_path / f"{deaths}" / "jobs.db"
        shutil.copytree(damaged.parent, path.parent)
        opening = [sys.executable, "-c", OPENER, str(path), str(deaths)]
        code = (await asyncio.to_thread(subprocess.run, opening, check=False)).returncode
        broker = await SqliteBroker(path).start()
        assert [record.id for record in await broker.unfinished()] == ids
        await broker.close()
        left = {file.name for file in path.parent.iterdir() if "damaged" not in file.name}
        assert left == {"jobs.db", "jobs.db.lock"}
    assert code == 0
    assert deaths > len(ids)


async def test_a_rescue_that_finds_the_disk_full_drops_no_row(tmp_path, monkeypatch):
    path = tmp_path / "jobs.db"
    ids = await damaged_index(path)
    before, copy_row = path.read_bytes(), store_file.copy_row

    class Full:
        def execute(self, *_):
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store_file, "copy_row", lambda old, _, seq: copy_row(old, Full(), seq))
        with pytest.raises(ConfigError, match="disk is full"):
            SqliteBroker(path)
    assert path.read_bytes() == before
    broker = await SqliteBroker(path).start()
    assert [record.id for record in await broker.unfinished()] == ids
    await broker.close()


@pytest.mark.parametrize("fault", ["removed", "with its folder", "replaced", "a folder in its place"])
async def test_a_store_whose_file_is_taken_away_is_written_anew_before_anything_is_confirmed(tmp_path, fault):
    folder = tmp_path / "state"
    path = folder / "jobs.db"
    broker = await SqliteBroker(path).start()
    await broker.publish(job(b"before", "before"))
    if fault == "with its folder":
        shutil.rmtree(folder)
    elif fault == "replaced":
        shutil.copy(path, folder / "copy")
        (folder / "copy").rename(path)
    else:
        path.unlink()
    if fault == "a folder in its place":
        path.mkdir()
    await broker.publish(job(b"after", "after"))
    kept = tmp_path / "kept.db"  # what a power cut would leave at this moment
    shutil.copy(path, kept)
    await broker.publish(job(b"later", "later"))
    await broker.close()
    for left, names in ((kept, ["before", "after"]), (path, ["before", "after", "later"])):
        found = await SqliteBroker(left).start()
        assert [record.id for record in await found.unfinished()] == names
        await found.close()


async def test_another_process_that_reads_the_store_keeps_nobody_waiting(tmp_path):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    await broker.publish(job(id="before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
        async with asyncio.timeout(1):
            for _ in range(5):
                await broker.publish(job())
    await broker.publish(job())
    assert os.path.getsize(f"{path}-wal") == 0
    await broker.close()


async def test_another_process_that_locks_the_store_is_an_error_that_passes(tmp_path):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match="held by another process"):
            await broker.publish(job())
        other.execute("ROLLBACK")
    assert await broker.publish(job(id="at last")) == "at last"
    await broker.close()


async def test_a_lease_that_ends_while_the_store_cannot_be_written_goes_to_somebody_else_when_it_can(
    tmp_path, caplog
):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path, BrokerOptions(lease_s=0.2)).start()
    id = await broker.publish(job())
    await broker.take(1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with asyncio.timeout(10):
            while "held by another process" not in caplog.text:
                await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
    async with asyncio.timeout(10):
        (again,) = await broker.take(1)
    assert (again.id, again.deliveries) == (id, 2)
    assert await broker.ack(again, b"result")
    await broker.close()


async def test_two_processes_cannot_have_one_store(tmp_path):
    broker = await SqliteBroker(tmp_path / "jobs.db").start()
    with pytest.raises(ConfigError, match="another server"):
        SqliteBroker(tmp_path / "jobs.db")
    await broker.close()
    await (await SqliteBroker(tmp_path / "jobs.db").start()).close()


async def test_a_full_disk_is_its_own_error_and_nothing_is_torn(tmp_path):
    broker = await SqliteBroker(tmp_path / "jobs.db", BrokerOptions(size_bytes=200_000)).start()
    safe = await fill(broker)
    assert len(safe) > 20
    for id in safe:
        assert (await broker.get(id)).state == "queued"
    leases = await broker.take(2)
    assert await broker.ack(leases[0], b"a result has room")
    with pytest.raises(StorageFull, match="Make room"):
        await broker.ack(leases[1], os.urandom(100_000))
    assert (await broker.get(leases[0].id)).state == "done"
    assert (await broker.get(leases[1].id)).state == "running"
    await broker.close()
    db = sqlite3.connect(tmp_path / "jobs.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


async def fill(broker):
    """Publish until there is no room; the jobs that found some."""
    ids: list[str] = []

    async def publish() -> None:
        while True:
            ids.append(await broker.publish(job(os.urandom(1000))))

    with pytest.raises(StorageFull, match="kept for results"):
        await publish()
    return ids


async def is_full(broker):
    """Whether one more job finds no room."""
    try:
        await broker.publish(job(b"one more"))
    except StorageFull:
        return True
    return False


async def test_a_full_store_has_room_again_once_its_results_have_been_kept_long_enough(tmp_path):
    path, full = tmp_path / "jobs.db", BrokerOptions(size_bytes=200_000, retention_s=0.3)
    broker = await SqliteBroker(path, full).start()
    ids = await fill(broker)
    leases = await broker.take(len(ids))
    for lease in leases[:-1]:
        assert await broker.ack(lease, b"result")
    async with asyncio.timeout(5):
        while await is_full(broker):
            await asyncio.sleep(0.05)
    with pytest.raises(NotFoundError):
        await broker.get(ids[0])
    assert (await broker.get(leases[-1].id)).state == "running"
    await broker.close()


async def test_what_ended_long_ago_is_forgotten_though_nothing_is_published(tmp_path):
    path = tmp_path / "jobs.db"
    broker = await SqliteBroker(path).start()
    ids = [await broker.publish(job()) for _ in range(2)]
    for lease in await broker.take(2):
        await broker.ack(lease, b"result")
    await broker.close()
    content = path.read_bytes()  # the first one's id has rotted, and its index says something else
    place = content.rindex(ids[0].encode())
    path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    broker = await SqliteBroker(path, BrokerOptions(retention_s=0.2)).start()
    with closing(sqlite3.connect(path)) as reader:
        async with asyncio.timeout(5):
            while reader.execute("SELECT count(*) FROM jobs").fetchone() != (0,):
                await asyncio.sleep(0.05)
    for id in ids:
        with pytest.raises(NotFoundError):
            await broker.get(id)
    await broker.close()


@asynccontextmanager
async def ends(server, *, in_flight=128, **rabbit):
    """An intake and a source at RabbitMQ, both up."""
    prefix = f"fault-{secrets.token_hex(4)}"
    rabbit = {"check_s": 1.0} | rabbit
    options = RabbitOptions(prefix=prefix, backoff_s=0.1, longest_backoff_s=1.0, **rabbit)
    bounds = BrokerOptions(max_deliveries=50, in_flight=in_flight)
    store = await SqliteBroker(options=bounds).start()
    intake = await RabbitIntake(server.url, store, bounds, options).start()
    await intake.link.wait_up(20)
    source = await RabbitSource(server.url, bounds, options).start()
    await source.link.wait_up(20)
    yield intake, source, options
    await source.close()
    await intake.close()


async def delete_queue(server, name):
    """As somebody else would who works at RabbitMQ."""
    connection = await aio_pika.connect(server.url)
    await (await connection.channel()).queue_delete(name)
    await connection.close()


async def work(source):
    """Echo every job, for ever."""
    while True:
        leases = await source.take(20)
        for lease in leases:
            with suppress(BrokerUnavailable):
                await source.ack(lease, lease.body)


async def publish_for_sure(intake, body):
    """Publish until it is accepted; what was refused counts for nothing."""
    while True:
        try:
            return await intake.publish(job(body))
        except TriptychError:
            await asyncio.sleep(0.05)


async def all_done(intake, expected):
    async with asyncio.timeout(60):
        for id, body in expected.items():
            while (record := await intake.get(id)).state != "done":
                await asyncio.sleep(0.02)
            assert record.result == body


@pytest.mark.parametrize("fault", ["killed", "stopped", "queue deleted"])
async def test_rabbitmq_goes_away_under_load_and_nothing_is_lost(rabbitmq, fault):
    async with ends(rabbitmq) as (intake, source, options):
        working = asyncio.create_task(work(source))
        bodies = [f"{n}".encode() for n in range(150)]
        expected = {await publish_for_sure(intake, body): body for body in bodies[:50]}
        await all_done(intake, expected)
        publishing = asyncio.gather(*(publish_for_sure(intake, body) for body in bodies[50:]))
        await asyncio.sleep(0)
        if fault == "killed":
            await asyncio.to_thread(rabbitmq.kill)
            await asyncio.to_thread(rabbitmq.start)
        elif fault == "stopped":
            rabbitmq.send(signal.SIGSTOP)
            async with asyncio.timeout(30):
                await asyncio.gather(intake.link.wait_down(), source.link.wait_down())
            rabbitmq.send(signal.SIGCONT)
        else:
            await delete_queue(rabbitmq, f"{options.prefix}.jobs")
        expected |= dict(zip(await publishing, bodies[50:], strict=True))
        await all_done(intake, expected)
        assert not working.done()
        working.cancel()


def tells_of(intake, kind) -> asyncio.Event:
    """Set once the intake has taken in a message of this kind."""
    told, note = asyncio.Event(), intake._intaking._note

    async def telling(message):
        await note(message)
        if message.header.properties.message_type == kind:
            told.set()

    intake._intaking._note = telling
    return told


async def test_a_job_that_was_confirmed_by_a_queue_now_gone_but_not_written_down_is_sent_again(rabbitmq):
    async with ends(rabbitmq) as (intake, source, options):
        confirmed, write_down = asyncio.Event(), asyncio.Event()
        publish = intake._store.publish

        async def later(job):
            confirmed.set()
            await write_down.wait()
            return await publish(job)

        intake._store.publish = later
        told = tells_of(intake, RECREATED)
        publishing = asyncio.create_task(intake.publish(job(b"between")))
        await confirmed.wait()
        await asyncio.gather(source.link.wait_down(), delete_queue(rabbitmq, f"{options.prefix}.jobs"))
        await source.link.wait_up(20)
        working = asyncio.create_task(work(source))
        await told.wait()
        write_down.set()
        id = await publishing
        await all_done(intake, {id: b"between"})
        assert (await intake.get(id)).result == b"between"
        working.cancel()


async def replace_queue(server, name, exchange):
    """Delete it and make another of its name in the same breath, as only an impatient script would."""
    connection = await aio_pika.connect(server.url)
    channels = [await (await connection.channel()).get_underlay_channel() for _ in range(2)]
    deleting = asyncio.create_task(channels[0].queue_delete(name))
    made = asyncio.create_task(make_when_gone(connection, name))
    await asyncio.gather(deleting, made)
    await channels[1].queue_bind(name, exchange)
    await connection.close()


async def make_when_gone(connection, name):
    while True:
        channel = await (await connection.channel()).get_underlay_channel()
        try:
            await channel.queue_declare(name, passive=True)
        except ChannelNotFoundEntity:
            channel = await (await connection.channel()).get_underlay_channel()
            return await channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})


async def test_a_consumer_that_rabbitmq_took_over_into_another_queue_is_noticed_and_begins_anew(rabbitmq):
    async with ends(rabbitmq, in_flight=4) as (intake, source, options):
        working = asyncio.create_task(work(source))
        expected = {await publish_for_sure(intake, b"%d" % n): b"%d" % n for n in range(50)}
        await all_done(intake, expected)
        await replace_queue(rabbitmq, f"{options.prefix}.jobs", f"{options.prefix}.work")
        expected = {await publish_for_sure(intake, b"%d" % n): b"%d" % n for n in range(50)}
        await all_done(intake, expected)
        working.cancel()


async def test_publishers_that_are_blocked_are_refused_in_time(rabbitmq):
    async with ends(rabbitmq, publish_timeout_s=0.5) as (intake, source, _):
        await intake.publish(job())
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.000001")
        try:
            with pytest.raises(BrokerUnavailable, match=r"connection\.blocked|confirmed within"):
                await asyncio.gather(*(intake.publish(job()) for _ in range(3)))
        finally:
            await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.6")
        working = asyncio.create_task(work(source))
        await all_done(intake, {await publish_for_sure(intake, b"after"): b"after"})
        working.cancel()


@asynccontextmanager
async def alarm(server):
    """RabbitMQ is short of memory meanwhile: it blocks publishers."""
    await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.000001")
    try:
        yield
    finally:
        await asyncio.to_thread(server.control, "set_vm_memory_high_watermark", "0.6")


async def until(is_so, timeout_s=30.0):
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.01)


async def test_jobs_that_wait_while_no_source_can_connect_cost_no_delivery_and_are_done_once(
    rabbitmq, caplog
):
    async with ends(rabbitmq, check_s=0.5) as (intake, first, options):
        await first.close()
        ids = [await intake.publish(job(b"%d" % n)) for n in range(30)]
        bounds = BrokerOptions(max_deliveries=3, in_flight=8)
        sources = [RabbitSource(rabbitmq.url, bounds, options) for _ in range(2)]
        async with alarm(rabbitmq):
            caplog.clear()
            for source in sources:
                await source.start()
            await until(lambda: caplog.text.count("blocks publishers") >= 8)  # four tries of each
            assert not any(source.link.is_up for source in sources)
            tries = [line for line in caplog.text.splitlines() if "blocks publishers" in line]
            assert all(line.endswith("next try in 0.1 s") for line in tries)  # it may end at any moment
        working = [asyncio.create_task(work(source)) for source in sources]
        await all_done(intake, {id: b"%d" % n for n, id in enumerate(ids)})
        for task in working:
            task.cancel()
        assert not await intake.dead_letters()
        assert {(await intake.get(id)).deliveries for id in ids} == {1}
        await until_empty(rabbitmq, f"{options.prefix}.jobs")
        for source in sources:
            await source.close()


async def test_tries_to_connect_whose_canary_stays_away_cost_no_job_a_delivery(rabbitmq, monkeypatch):
    async with ends(rabbitmq) as (intake, first, options):
        await first.close()
        ids = [await intake.publish(job(b"%d" % n)) for n in range(5)]
        check, failures = AmqpConnection._check, [TimeoutError() for _ in range(3)]

        async def stay_away(connection):
            if failures:
                raise failures.pop()
            await check(connection)

        monkeypatch.setattr(AmqpConnection, "_check", stay_away)
        source = await RabbitSource(rabbitmq.url, BrokerOptions(max_deliveries=50), options).start()
        await source.link.wait_up(20)
        working = asyncio.create_task(work(source))
        await all_done(intake, {id: b"%d" % n for n, id in enumerate(ids)})
        working.cancel()
        assert {(await intake.get(id)).deliveries for id in ids} == {1}
        await source.close()


async def until_empty(server, queue):
    """Whatever was in it has been acknowledged."""
    async with asyncio.timeout(30):
        while [queue, "0"] not in await asyncio.to_thread(server.queues, "messages"):
            await asyncio.sleep(0.1)


async def test_what_a_failed_try_to_connect_delivered_is_not_taken_for_what_the_next_one_does(
    rabbitmq, monkeypatch
):
    async with ends(rabbitmq) as (intake, first, options):
        await first.close()
        ids = {await intake.publish(job(b"%d" % n)) for n in range(2)}
        source = RabbitSource(rabbitmq.url, BrokerOptions(max_deliveries=50), options)
        begin, stale = AmqpConnection.consume, []

        async def begin_and_fail(connection, consumption):
            await begin(connection, consumption)
            if not stale:
                await until(lambda: len(source._waiting) == 2)
                stale.extend(source._waiting)
                raise TimeoutError

        monkeypatch.setattr(AmqpConnection, "consume", begin_and_fail)
        await source.start()
        await source.link.wait_up(20)
        await until(lambda: len(source._waiting) >= 2)
        leases = await source.take(10)
        assert {lease.id for lease in leases} == ids
        assert [lease.deliveries for lease in leases] == [2, 2]
        assert not {lease.tag for lease in leases} & {lease.tag for lease in stale}
        assert not await source.ack(stale[0], b"late")
        for lease in leases:
            assert await source.ack(lease, b"result")
        await all_done(intake, dict.fromkeys(ids, b"result"))
        await until_empty(rabbitmq, f"{options.prefix}.jobs")
        await source.close()


async def test_whoever_acknowledges_while_the_connection_ends_goes_on(rabbitmq):
    async with ends(rabbitmq, publish_timeout_s=0.5) as (intake, source, options):
        ids = [await intake.publish(job(b"%d" % n)) for n in range(40)]
        await until(lambda: len(source._waiting) == 40)
        source.link._connection._transport()._writer_task.cancel()
        jobs = f"{options.prefix}.jobs"
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(
                *(source.link.acknowledge(jobs, 1 + n) for n in range(20)),
                *(source.link.give_back(jobs, 21 + n) for n in range(20)),
                return_exceptions=True,
            )
        assert all(outcome is None or isinstance(outcome, ERRORS) for outcome in outcomes)
        working = asyncio.create_task(work(source))
        await all_done(intake, {id: b"%d" % n for n, id in enumerate(ids)})
        working.cancel()


async def test_a_queue_without_a_leader_that_a_gateway_left_keeps_nobody_from_connecting(rabbitmq):
    prefix = f"test-{secrets.token_hex(4)}"
    connection = await aio_pika.connect(rabbitmq.url)
    channel = await (await connection.channel()).get_underlay_channel()
    await channel.exchange_declare(f"{prefix}.gateways", exchange_type="fanout", durable=True)
    await channel.queue_declare(prefix, durable=True, arguments={"x-queue-type": "quorum"})
    await channel.queue_bind(prefix, f"{prefix}.gateways")
    await connection.close()
    member = f"{{'%2F_{prefix}', node()}}"
    await asyncio.to_thread(rabbitmq.control, "eval", f"ra:stop_server(quorum_queues, {member}).")
    source = await RabbitSource(rabbitmq.url, rabbit=RabbitOptions(prefix=prefix)).start()
    await source.link.wait_up(8.0)  # it has told all gateways, but for the one that cannot be told
    assert source.link.is_up
    assert [f"{prefix}.jobs"] in await asyncio.to_thread(rabbitmq.queues)
    await source.close()


async def test_what_the_library_cancels_is_an_error_and_who_is_asked_to_stop_stops():
    with pytest.raises(ChannelInvalidStateError), closing_is_an_error():
        raise asyncio.CancelledError

    async def wait():
        with closing_is_an_error():
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_try_that_the_library_cancels_or_that_fails_in_an_unknown_way_is_not_the_last(rabbitmq):
    failures = [asyncio.CancelledError(), KeyError("unknown")]

    async def declare(_):
        if failures:
            raise failures.pop()

    link = AmqpLink(rabbitmq.url, RabbitOptions(backoff_s=0.01), declare, [])
    await link.start()
    await link.wait_up(20)
    assert not failures
    await link.close()


async def test_without_a_broker_the_refusal_says_why():
    store = await SqliteBroker().start()
    intake = await RabbitIntake("amqp://guest:secret@127.0.0.1:1/", store).start()
    with pytest.raises(BrokerUnavailable) as caught:
        await intake.link.wait_up(0.3)
    assert "secret" not in str(caught.value)
    with pytest.raises(BrokerUnavailable):
        await intake.publish(job())
    await intake.close()
