"""A `triptych serve` process, seen from outside: its address, its workers, its end."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from triptych.errors import ServeError

_URL = re.compile(r"http://[\w.\-]+:\d+")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
LOOK_EVERY_S = 0.01


class Server:
    """Starts on entry, drains with SIGTERM on exit; `exit_code` is 0 only if accepted work was answered."""

    def __init__(self, bundles: list[Path], *, workers: int, log: Path) -> None:
        self.command = ["serve", *map(str, bundles), "--workers", str(workers), "--port", "0"]
        self.log = log
        self.exit_code: int | None = None
        self.address = ""
        self.seconds_to_ready = 0.0

    def __enter__(self) -> Server:
        started_s = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "triptych", *self.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._has_address = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._has_address.wait(START_TIMEOUT_S)
        if not self.address:
            self._process.kill()
            raise ServeError("did not get ready", where="triptych serve", remedy=f"see {self.log}")
        self.seconds_to_ready = time.monotonic() - started_s
        return self

    def _read(self) -> None:
        """Copy what the server says into the log; its first line with an address says that it is ready."""
        assert self._process.stdout is not None
        with self.log.open("w") as log:
            for line in self._process.stdout:
                log.write(line)
                log.flush()
                if not self.address and (match := _URL.search(line)):
                    self.address = match.group()
                    self._has_address.set()
        self._has_address.set()

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """A new keep-alive connection."""
        url = urlsplit(self.address)
        return http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)

    def get(self, path: str) -> Any:
        """The JSON document at `path`."""
        connection = self.connect()
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def worker_pids(self) -> list[int]:
        """The processes that are ready to work."""
        return [w["pid"] for w in self.get("/v2/workers")["workers"] if w["state"] == "ready"]

    def wait_for_replacement(self, before: list[int], *, timeout_s: float = 30.0) -> int | None:
        """The pid of a ready worker that was not there before; None if there is none by the deadline."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if fresh := set(self.worker_pids()) - set(before):
                return fresh.pop()
            time.sleep(LOOK_EVERY_S)
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self.exit_code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_code = self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
