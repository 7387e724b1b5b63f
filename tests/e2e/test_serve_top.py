"""`triptych top` against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def top(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triptych", "top", "--url", url, "--once", "--interval", "0.5"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "80"}
    )


def test_it_shows_rates_waiting_workers_and_their_restarts(start) -> None:
    served = start("--workers", "2")
    killed = served.workers()[0]["pid"]
    os.kill(killed, signal.SIGKILL)
    while served.workers()[0]["pid"] in (killed, None) or served.workers()[0]["state"] != "ready":
        pass
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            served.sample(seed=1)

    asking = threading.Thread(target=load)
    asking.start()
    shown = top(served.url)
    over.set()
    asking.join()
    assert shown.returncode == 0, shown.stderr
    rate = next(line for line in shown.stdout.splitlines() if line.startswith("answered"))
    assert "200:" in rate
    assert "restarts  1 by SIGKILL" in shown.stdout
    assert shown.stdout.count("ready") == 2
    assert "0 of 1024" in shown.stdout


def test_nobody_there_is_one_clear_line() -> None:
    shown = top("http://127.0.0.1:9")
    assert shown.returncode == 2
    assert "Name a running server with --url" in shown.stderr
