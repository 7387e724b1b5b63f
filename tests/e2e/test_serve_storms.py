"""Storms: kills in a row, and stops under load, as clients see them."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time

import httpx
import psutil
import pytest

from triptych.serve.chaos.load import Load, completion, sample

SEEDS = 12


def crowd(served) -> Load:
    """Clients that ask for samples and for streamed texts, until the block ends or nobody listens."""
    texts = [completion(SEEDS + n, "text", "ab", max_tokens=40, stream=True) for n in range(SEEDS)]
    requests = [request for n in range(SEEDS) for request in (sample(n, "vae", n=2), texts[n])]
    return Load(served, itertools.cycle(requests), connections=8, until_refused=True)


def test_a_storm_of_kills_is_not_noticed_by_any_client(start) -> None:
    served = start("--workers", "2")
    chance, pause = random.Random(0), threading.Event()
    with crowd(served) as load:
        load.wait_for(50)
        for _ in range(20):
            alive = [worker["pid"] for worker in served.workers() if worker["pid"]]
            if alive:
                os.kill(chance.choice(alive), signal.SIGKILL)
            pause.wait(0.5)
        load.wait_for(50)
    assert load.tally.errors == []
    assert [len(digests) for digests in load.tally.digests().values()] == [1] * 2 * SEEDS
    assert served.process.poll() is None
    assert "escalated" not in served.log.read_text()
    assert sum(worker["restarts"] for worker in served.workers()) >= 10


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_no_client_is_cut_off_by_sigterm_under_load(start, times: int) -> None:
    for _ in range(times):
        served = start("--workers", "2", "--set", "drain.delay_s=0.2")
        with crowd(served) as load:
            load.wait_for(30)
            served.process.send_signal(signal.SIGTERM)
            load.join()  # every client goes on until it is refused a connection
        assert served.process.wait(30) == 0
        assert load.tally.errors == []


def test_a_node_killed_under_load_resets_its_callers_and_is_back_on_its_port(start) -> None:
    served = start("--workers", "2")
    node = psutil.Process(served.workers()[0]["pid"]).parent()
    with crowd(served) as load:
        load.wait_for(30)
        node.kill()
        killed_s = time.monotonic()
        with httpx.Client(base_url=served.url, timeout=30) as client:
            assert client.post("/v1/models/vae/sample", json={"n": 1}).status_code == 200
        assert time.monotonic() - killed_s < 5  # 2 s on a machine that has nothing else to do
        assert load.wait_for(30)
    errors = [answer.error for answer in load.tally.errors]
    assert len(errors) <= 8  # each client is reset once
    broken = ("ConnectionReset", "RemoteDisconnected", "BrokenPipe", "IncompleteRead")
    assert [error for error in errors if not error.startswith(broken)] == []


def test_a_killed_root_leaves_no_orphans(start) -> None:
    served = start("--workers", "2")
    tree = psutil.Process(served.process.pid).children(recursive=True)
    assert len(tree) == 3
    with crowd(served):
        served.process.kill()
        assert not psutil.wait_procs(tree, timeout=2)[1]


def test_a_second_sigterm_stops_now(start) -> None:
    served = start("--workers", "1", "--set", "limits.tokens=1000000")
    tree = psutil.Process(served.process.pid).children(recursive=True)
    text = {"model": "text", "prompt": "ab", "max_tokens": 1000000, "seed": 2, "stream": True}
    with served.client.stream("POST", "/v1/completions", json=text) as answer:
        lines = answer.iter_lines()
        next(lines)
        served.process.send_signal(signal.SIGTERM)
        while served.client.get("/readyz").status_code == 200:
            pass
        threading.Event().wait(0.3)  # two signals at once are one request
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(5) != 0
        with pytest.raises(httpx.TransportError):
            list(lines)
    assert not psutil.wait_procs(tree, timeout=2)[1]
