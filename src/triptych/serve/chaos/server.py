"""A `triptych serve` process, seen from outside: its address, its processes, what it answers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from triptych.serve.chaos import process
from triptych.serve.chaos.connection import Connection
from triptych.serve.chaos.program import Program, wait_until

URL = re.compile(r"https?://[\w.\-\[\]:]*:\d+")


class Server(Program):
    """A server of `bundles`, at a free port.

    Args:
        workers: worker processes.
        log: file that gets every line the server writes.
        options: further words of its command line. With `--log json` its events can be waited for.
        environment: variables set on top of this process's own.
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
        words = ["serve", *map(str, bundles), "--workers", str(workers), "--port", "0", *options]
        super().__init__(words, until=URL, log=log, environment=environment)

    @property
    def address(self) -> str:
        """Its URL."""
        return self.said

    def connect(self, timeout_s: float = 30.0) -> http.client.HTTPConnection:
        """A new keep-alive connection."""
        url = urlsplit(self.address)
        return Connection(url.hostname or "", url.port, timeout=timeout_s)

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
