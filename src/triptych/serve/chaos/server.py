"""A `triptych serve` process, seen from outside: its address, its processes, what it logs, its end."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from triptych.errors import ServeError
from triptych.serve.chaos import process

_URL = re.compile(r"https?://[\w.\-\[\]:]*:\d+")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
EVENT_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.01

Event = dict[str, Any]
T = TypeVar("T")


class Server:
    """Starts on entry, drains with SIGTERM on exit; `exit_code` is 0 only if accepted work was answered.

    Args:
        workers: worker processes.
        log: file that gets every line the server writes.
        options: further words of its command line. With `--log json` its events can be waited for.
        environment: variables set on top of this process's own.

    Attributes:
        bundles, command: what it serves, and the words after `triptych`.
        address: its URL.
        seconds_to_ready: from its start to the line that says so.
        exit_code: once it has ended.
        events: what its log says in JSON, each with `at_s`, the wall-clock second it was written.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        *,
        workers: int,
        log: Path,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.bundles = list(bundles)
        self.command = ["serve", *map(str, bundles), "--workers", str(workers), "--port", "0", *options]
        self.log = log
        self.exit_code: int | None = None
        self.address = ""
        self.seconds_to_ready = 0.0
        self.events: list[Event] = []
        self._environment = environment or {}
        self._heard = threading.Condition()
        self._is_silent = False

    def __enter__(self) -> Server:
        started_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "triptych", *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self._environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._heard:
            self._heard.wait_for(lambda: bool(self.address) or self._is_silent, START_TIMEOUT_S)
        if not self.address:
            self._process.kill()
            raise ServeError("did not get ready", where="triptych serve", remedy=f"see {self.log}")
        self.seconds_to_ready = time.monotonic() - started_s
        return self

    @property
    def pid(self) -> int:
        """Process id of the root."""
        return self._process.pid

    def _read(self) -> None:
        """Copy what the server says into the log; its first line with an address says that it is ready."""
        assert self._process.stdout is not None
        with self._process.stdout as said, self.log.open("w") as log:
            for line in said:
                log.write(line)
                log.flush()
                self._take(line)
        with self._heard:
            self._is_silent = True
            self._heard.notify_all()

    def _take(self, line: str) -> None:
        with self._heard:
            if line.startswith("{"):
                event = json.loads(line)
                event["at_s"] = datetime.fromisoformat(event["time"]).timestamp()
                self.events.append(event)
            elif not self.address and (match := _URL.search(line)):
                self.address = match.group()
            self._heard.notify_all()

    def wait_for_event(
        self, kind: str, *, past: int = 0, timeout_s: float = EVENT_TIMEOUT_S, **fields: object
    ) -> Event | None:
        """The first logged event of `kind` with these fields; None if there is none by the deadline.

        Args:
            past: how many of `events` to skip, usually `len(server.events)` of a moment before.
        """

        def found() -> Event | None:
            wanted = {"event_kind": kind, **fields}
            return next(
                (e for e in self.events[past:] if all(e.get(k) == v for k, v in wanted.items())), None
            )

        with self._heard:
            self._heard.wait_for(lambda: found() is not None, timeout_s)
            return found()

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """A new keep-alive connection."""
        url = urlsplit(self.address)
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)

    def fetch(self, path: str, *, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """Status and body of a GET."""
        connection = self.connect(timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON document at `path`."""
        return json.loads(self.fetch(path)[1])

    def workers(self) -> list[dict[str, Any]]:
        """What it says of its workers."""
        return list(self.get("/v2/workers")["workers"])

    def worker_pids(self) -> list[int]:
        """The processes that are ready to work."""
        return [worker["pid"] for worker in self.workers() if worker["state"] == "ready"]

    def node_pid(self) -> int:
        """The process that answers HTTP."""
        return process.children(self.pid)[0]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all its series that carry these labels; 0 if there is none."""
        total = 0.0
        for line in self.fetch("/metrics")[1].decode().splitlines():
            found = re.fullmatch(rf"{re.escape(name)}(?:\{{(.*)\}})? (\S+)", line)
            if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1] or "")).items() >= labels.items():
                total += float(found[2])
        return total

    def wait_for_replacement(self, before: Sequence[int], *, timeout_s: float = 30.0) -> int | None:
        """The pid of a ready worker that was not there before; None if there is none by the deadline."""

        def fresh() -> int | None:
            return next(iter(set(self.worker_pids()) - set(before)), None)

        return wait_until(fresh, timeout_s=timeout_s)

    def is_running(self) -> bool:
        """Whether its root has not ended."""
        return self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the root."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """The exit code; None if it still runs by the deadline."""
        try:
            self.exit_code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5)
        return self.exit_code

    def kill(self) -> None:
        """End the root at once; what is below it ends with it."""
        self._process.kill()
        self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.exit_code is None:
            self.send_signal(signal.SIGTERM)
            if self.wait() is None:
                self.kill()


def wait_until(look: Callable[[], T | None], *, timeout_s: float) -> T | None:
    """Look from outside, again and again, until there is something to see; None if there is not in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := look():
            return found
        time.sleep(LOOK_EVERY_S)
    return None
