"""When a parent is killed, nobody below it lives on."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from triptych.serve.supervise.process import spawn

PROGRAMS = {"PYTHONPATH": str(Path(__file__).parents[1] / "serve" / "supervise")}


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_children_of_a_killed_parent_are_gone_within_a_second():
    read, write = os.pipe()
    parent = await spawn(
        "integer_processes:parent_of_two",
        {"write": write},
        name="parent",
        pass_fds=[write],
        environment=PROGRAMS,
    )
    os.close(write)
    told = b""
    while told.count(b".") < 2:
        told += os.read(read, 100)
    children = [os.pidfd_open(int(pid)) for pid in told.replace(b".", b"").split()]
    assert len(children) == 2
    parent.send_signal(signal.SIGKILL)
    began_s = time.monotonic()
    for child in children:
        assert select.select([child], [], [], 1.0)[0], "a child outlived its parent"
        os.close(child)
    assert time.monotonic() - began_s < 1.0
    assert (await parent.wait()).signal == signal.SIGKILL
    os.close(read)
