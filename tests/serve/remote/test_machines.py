"""Who is heard of, and what is then on offer."""

from __future__ import annotations

import msgspec
import pytest

from triptych import __version__
from triptych.bundle.manifest import MANIFEST
from triptych.serve.remote import machines as module
from triptych.serve.remote.machines import Machines
from triptych.serve.remote.protocol import Announcement, Offer
from triptych.serve.supervise.pool import WorkerInfo

pytestmark = pytest.mark.anyio


@pytest.fixture
def announce(make_model):
    """The bytes of a worker's announcement."""

    def announce(id, *, way="way", version="0123456789ab", start=0.0, processes=1, leaving=False, **changes):
        model = make_model(version=version)
        offer = Offer((model.folder / MANIFEST).read_bytes(), 0, way)
        infos = [WorkerInfo(slot, 1, "ready", 0, 0, 0) for slot in range(processes)]
        told = Announcement(__version__, id, start, [offer], infos, leaving)
        return msgspec.msgpack.encode(msgspec.structs.replace(told, **changes))

    return announce


@pytest.fixture
async def machines():
    found = Machines(lambda: None, lambda: None)
    yield found
    found.hold()


def offered(machines):
    return {name: offer.key[1:] for name, offer in machines.offered.items()}


async def test_of_two_versions_that_of_the_worker_started_last_is_on_offer(machines, announce):
    machines.hear(announce("new", version="bbbbbbbbbbbb", start=2.0))
    machines.hear(announce("old", version="aaaaaaaaaaaa", start=1.0, processes=8))
    assert offered(machines) == {"by-hand": ("bbbbbbbbbbbb", "way")}
    assert machines.ready() == 1


async def test_a_worker_that_computes_otherwise_than_most_gets_no_work_and_that_is_said_once(
    machines, announce, caplog
):
    machines.hear(announce("first", way="f32"))
    machines.hear(announce("misfit", way="int8", start=5.0))
    machines.hear(announce("third", way="f32", start=6.0))
    assert offered(machines) == {"by-hand": ("0123456789ab", "f32")}
    assert machines.ready() == 2
    assert caplog.text.count("worker misfit gets no work on `by-hand`") == 1


async def test_the_way_of_most_processes_is_on_offer_whoever_is_heard_first(machines, announce):
    machines.hear(announce("few", way="avx2", processes=2))
    machines.hear(announce("many", way="amx", start=1.0, processes=3))
    assert offered(machines)["by-hand"][1] == "amx"
    machines.hear(announce("many", leaving=True))
    assert offered(machines)["by-hand"][1] == "avx2"


async def test_a_worker_of_another_release_is_refused_and_that_is_said_once(machines, announce, caplog):
    for _ in range(3):
        machines.hear(announce("other", software="99.0"))
    assert not machines
    assert not machines.offered
    assert caplog.text.count("worker other gets no work: worker: runs Triptych 99.0") == 1


async def test_announcements_of_a_release_with_other_fields_are_read_as_far_as_they_must(machines, caplog):
    machines.hear(msgspec.msgpack.encode(["99.0", "later", {"quite": "different"}]))
    machines.hear(b"\x00 no msgpack of ours")
    assert "worker later gets no work" in caplog.text
    assert "worker ? gets no work" in caplog.text


async def test_a_manifest_that_cannot_be_read_is_refused_and_the_others_serve(machines, announce, caplog):
    damaged = Offer(b'{"format_version": 1', 0, "way")
    machines.hear(announce("damaged", offers=[damaged]))
    machines.hear(announce("whole"))
    assert len(machines) == 1
    assert "worker damaged gets no work" in caplog.text


async def test_a_model_stays_on_offer_when_its_last_worker_leaves_but_nobody_has_it(machines, announce):
    machines.hear(announce("only"))
    assert machines.have("by-hand")
    machines.hear(announce("only", leaving=True))
    assert "by-hand" in machines.offered
    assert not machines.have("by-hand")


async def test_who_is_not_heard_of_is_given_up_but_not_while_nobody_can_be_heard(
    machines, announce, monkeypatch, caplog
):
    import asyncio

    monkeypatch.setattr(module, "GONE_S", 0.02)
    gone = asyncio.Event()
    machines._on_change = gone.set
    machines.hear(announce("silent"))
    gone.clear()
    machines.hold()
    await asyncio.sleep(0.06)
    assert len(machines) == 1
    machines.resume()
    await gone.wait()
    assert not machines
    assert "was not heard of" in caplog.text
