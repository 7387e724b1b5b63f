"""Laws of processes as children."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from triptych.serve.supervise.activity import Activity
from triptych.serve.supervise.process import spawn

pytestmark = pytest.mark.anyio
HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}


def child(verb, *args):
    return spawn("integer_processes:" + verb, list(args), name=verb, environment=HERE)


async def test_the_exit_code_is_what_the_function_returns():
    assert (await (await child("leave", 0)).wait()).normal
    end = await (await child("leave", 7)).wait()
    assert (end.code, end.signal, end.reason) == (7, None, "exit code 7")


async def test_an_exception_is_exit_code_1():
    assert (await (await child("fail")).wait()).code == 1


async def test_what_a_child_logs_or_ends_with_is_an_object_if_asked_for(capfd):
    spoken = await spawn("integer_processes:warn_and_fail", None, name="n", environment=HERE, log="json")
    assert (await spoken.wait()).code == 1
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("warning", "py.warnings"),
        ("error", "integer_processes"),
        ("critical", "triptych.serve.supervise.log_lines"),
        ("critical", "triptych.serve.supervise.log_lines"),
    ]
    assert "mind the gap" in lines[0]["message"]
    assert lines[1]["message"] == "two\nlines"
    assert "ValueError: in a thread" in lines[2]["traceback"]
    assert "ValueError: asked to fail" in lines[3]["traceback"]


async def test_a_worker_whose_node_is_gone_with_its_word_unread_ends_without_a_traceback(capfd):
    ours, theirs = socket.socketpair()
    activity = Activity.create()
    descriptors = {"channel": theirs.fileno(), "activity": activity.descriptor}
    with ours, theirs:
        worker = await spawn(
            "triptych.serve.supervise.worker:serve",
            {"target": "integer_work:make", "args": None, **descriptors},
            name="w",
            pass_fds=tuple(descriptors.values()),
            environment=HERE,
        )
        theirs.close()
        await asyncio.to_thread(ours.recv, 1, socket.MSG_PEEK)  # that it is ready
    assert (await worker.wait()).code == 1
    activity.close()
    assert capfd.readouterr().err == ""


async def test_sigkill_is_seen_as_sigkill():
    process = await child("wait_for_term", None)
    process.send_signal(signal.SIGKILL)
    assert (await process.wait()).reason == "SIGKILL"
    process.send_signal(signal.SIGKILL)  # to a dead process: nothing happens


async def test_stop_asks_first_and_kills_who_does_not_listen():
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as ready:
        arguments = {"write": write}
        polite = await spawn(
            "integer_processes:wait_for_term", arguments, name="polite", pass_fds=[write], environment=HERE
        )
        assert ready.read(1) == b"."
        assert (await polite.stop(30.0)).code == 42
        deaf = await spawn(
            "integer_processes:ignore_term", arguments, name="deaf", pass_fds=[write], environment=HERE
        )
        assert ready.read(1) == b"."
        assert (await deaf.stop(0.01)).reason == "SIGKILL"
        os.close(write)


async def test_children_bear_their_name_and_ignore_the_terminals_interrupt():
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as ready:
        process = await spawn(
            "integer_processes:wait_for_term", {"write": write}, name="n", pass_fds=[write], environment=HERE
        )
        os.close(write)
        assert ready.read(1) == b"."
        assert psutil.Process(process.pid).cmdline()[0].startswith("triptych: n")
        process.send_signal(signal.SIGINT)
        assert (await process.stop(30.0)).code == 42


async def test_no_descriptor_is_left_behind():
    await (await child("leave", 0)).wait()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        await (await child("leave", 0)).wait()
    assert len(os.listdir("/proc/self/fd")) == before
