"""A server is told to stop while former generations of its workers are still finishing."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from triptych.errors import WorkerDied
from triptych.serve.catalog import Catalog
from triptych.serve.fleet import Fleet
from triptych.serve.supervise.pool import WorkerPool

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
PROGRAMS = {"PYTHONPATH": str(Path(__file__).parents[1] / "serve" / "supervise")}


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


async def test_a_former_generation_that_ends_while_another_one_stops_does_not_disturb_the_stop(signpost):
    fleet = Fleet(
        Catalog({}), [], lambda _: WorkerPool("integer_work:make", None, 1, environment=PROGRAMS), retire_s=30
    )
    await fleet.start()
    generations = []
    for _ in range(2):
        generations.append(fleet.generation)
        fleet.generation.enter()
        await fleet.swap()
    held = asyncio.create_task(generations[0].pool.run([f"hold {signpost.path}".encode()]))
    pid = await signpost.reached()
    _, retiring = fleet._retiring
    stopping = asyncio.create_task(fleet.stop("infinity"))
    await asyncio.sleep(0)
    generations[1].leave()
    await asyncio.wait([retiring])
    assert not stopping.done()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        await held
    assert (await stopping).code == 0
