"""Storms: kills in a row, and stops under load, as clients see them."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

HEADERS = {"Content-Type": "application/json"}


class Crowd:
    """Threads with a connection each. `answers`: (kind, seed) -> contents; `errors`: what was not 200.

    Being refused a connection ends a client and is no error: the server had gone before it asked.
    """

    def __init__(self, url: str, samplers: int = 6, readers: int = 2) -> None:
        where = urlsplit(url)
        self._where = where.hostname, where.port
        self._stop = threading.Event()
        self.answers: dict[tuple[str, int], set[bytes]] = {}
        self.errors: list[str] = []
        self.answered = 0
        self._changed = threading.Condition()
        kinds = ["sample"] * samplers + ["text"] * readers
        self._threads = [threading.Thread(target=self._live, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Return once every client has ended."""
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return once `more` further answers have come."""
        with self._changed:
            goal = self.answered + more
            assert self._changed.wait_for(lambda: self.answered >= goal, timeout=60)

    def _live(self, kind: str) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=60)
        seed = 0
        try:
            while not self._stop.is_set():
                seed = (seed + 1) % 12
                if connection.sock is None:
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        return
                self._note(kind, seed, *self._ask(connection, kind, seed))
        except (OSError, http.client.HTTPException) as error:
            self._note(kind, seed, f"{type(error).__name__}: {error}", b"")
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, kind: str, seed: int) -> tuple[str, bytes]:
        if kind == "sample":
            connection.request("POST", "/v1/models/vae/sample", json.dumps({"n": 2, "seed": seed}), HEADERS)
        else:
            body = {"model": "text", "prompt": "ab", "max_tokens": 40, "seed": seed, "stream": True}
            connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        error = "" if answer.status == 200 else f"{answer.status} {content!r}"
        if kind == "text" and not error:
            if not content.endswith(b"data: [DONE]\n\n"):
                error = f"cut off: {content[-200:]!r}"
            events = [json.loads(line[6:]) for line in content.split(b"\n\n") if line.startswith(b"data: {")]
            content = "".join(c["text"] for event in events for c in event["choices"]).encode()
        return error, content

    def _note(self, kind: str, seed: int, error: str, content: bytes) -> None:
        with self._changed:
            self.answered += 1
            if error:
                self.errors.append(error)
            else:
                self.answers.setdefault((kind, seed), set()).add(content)
            self._changed.notify_all()


def test_a_storm_of_kills_is_not_noticed_by_any_client(start) -> None:
    served = start("--workers", "2")
    chance, pause = random.Random(0), threading.Event()
    with Crowd(served.url) as crowd:
        crowd.wait_for(50)
        for _ in range(20):
            alive = [worker["pid"] for worker in served.workers() if worker["pid"]]
            if alive:
                os.kill(chance.choice(alive), signal.SIGKILL)
            pause.wait(0.5)
        crowd.wait_for(50)
    assert crowd.errors == []
    assert [key for key, contents in crowd.answers.items() if len(contents) > 1] == []
    assert len(crowd.answers) == 24
    assert served.process.poll() is None
    assert "escalated" not in served.log.read_text()
    assert sum(worker["restarts"] for worker in served.workers()) >= 10


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_no_client_is_cut_off_by_sigterm_under_load(start, times: int) -> None:
    for _ in range(times):
        served = start("--workers", "2", "--set", "drain.delay_s=0.2")
        with Crowd(served.url) as crowd:
            crowd.wait_for(30)
            served.process.send_signal(signal.SIGTERM)
            crowd.join()  # every client goes on until it is refused a connection
        assert served.process.wait(30) == 0
        assert crowd.errors == []


def test_a_node_killed_under_load_resets_its_callers_and_is_back_on_its_port(start) -> None:
    served = start("--workers", "2")
    node = psutil.Process(served.workers()[0]["pid"]).parent()
    with Crowd(served.url) as crowd:
        crowd.wait_for(30)
        node.kill()
        killed_s = time.monotonic()
        crowd.join()  # each client ends with its first reset; none hangs
        with httpx.Client(base_url=served.url, timeout=30) as client:
            assert client.post("/v1/models/vae/sample", json={"n": 1}).status_code == 200
        assert time.monotonic() - killed_s < 5  # 2 s on a machine that has nothing else to do
    assert len(crowd.errors) <= 8
    broken = ("ConnectionReset", "RemoteDisconnected", "BrokenPipe", "IncompleteRead")
    assert [error for error in crowd.errors if not error.startswith(broken)] == []


def test_a_killed_root_leaves_no_orphans(start) -> None:
    served = start("--workers", "2")
    tree = psutil.Process(served.process.pid).children(recursive=True)
    assert len(tree) == 3
    with Crowd(served.url):
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
