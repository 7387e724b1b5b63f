"""Load on an HTTP server, by wrk: one thread, so that most of the machine is left to who answers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from triptych.errors import ConfigError, TriptychError

UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class Target(NamedTuple):
    """Where requests go, what each of them asks for, and in what form."""

    url: str
    body: str
    accept: str = "application/json"

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every request."""
        return {"Content-Type": "application/json", "Accept": self.accept}


class Burst(NamedTuple):
    """What one round of load saw: answers per second, and the time that one answer in a hundred exceeds."""

    requests_per_second: float
    p99_ms: float


def burst(target: Target, *, connections: int, seconds: int, folder: Path) -> Burst:
    """One round, each connection asking again as soon as it has its answer; `folder` takes wrk's script.

    Raises: TriptychError if any answer was not 200, ConfigError without wrk.
    """
    if shutil.which("wrk") is None:
        raise ConfigError("`wrk` is not installed", where="bench serve", remedy="`make system`")
    lines = [f"wrk.headers['{name}'] = '{value}'" for name, value in target.headers.items()]
    script = folder / "request.lua"
    script.write_text("\n".join(["wrk.method = 'POST'", f"wrk.body = '{target.body}'", *lines]))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "--latency",
        "-s",
        str(script),
        target.url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise TriptychError(said, where=target.url, valid="200 for every request")
    return parse(said)


def parse(said: str) -> Burst:
    """What wrk's report says.

    >>> parse("    99%    4.50ms\\nRequests/sec:   8123.45")
    Burst(requests_per_second=8123.45, p99_ms=4.5)
    """
    rate, slow = re.search(r"Requests/sec: +([\d.]+)", said), re.search(r"99% +([\d.]+)(us|ms|s|m)", said)
    if rate is None or slow is None:
        raise TriptychError(f"got {said!r}", where="wrk", valid="a report with its latencies")
    return Burst(float(rate[1]), float(slow[1]) * UNITS_MS[slow[2]])
