"""Claim: supervised workers and batches answer more requests than FastAPI with eager PyTorch per request."""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from triptych.bench.comparison import Comparison
from triptych.demo.server import Server
from triptych.errors import ConfigError, TriptychError

WORKERS, CONNECTIONS = 2, 32
ROUNDS, ROUND_S = 5, 3
BODY = '{"n": 1}'
SCRIPT = f"wrk.method, wrk.body, wrk.headers['Content-Type'] = 'POST', '{BODY}', 'application/json'\n"
START_TIMEOUT_S = 60.0
UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Burst(NamedTuple):
    """What one round of load saw."""

    requests_per_second: float
    p99_ms: float


def compare_serving() -> list[Comparison]:
    """One sample per request, JSON, 32 connections, two processes that compute on either side."""
    if shutil.which("wrk") is None:
        raise ConfigError("`wrk` is not installed", where="bench serve", remedy="`make system`")
    from triptych.bench.eager_server import decoder
    from triptych.learn.export import export

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "post.lua").write_text(SCRIPT)
        bundle = export(decoder(), folder / "decoder")
        with (
            eager_server() as reference,
            Server([bundle], workers=WORKERS, log=folder / "serve.log") as server,
        ):
            ours = f"{server.address}/v1/models/decoder/sample"
            equal = same_kind_of_answer(reference, ours)
            urls = reference, ours
            bursts = [[load(url, folder / "post.lua") for url in urls] for _ in range(1 + ROUNDS)][1:]
    theirs, mine = zip(*bursts, strict=True)
    return [comparison(list(theirs), list(mine), equal)]


def comparison(theirs: list[Burst], mine: list[Burst], equal: str) -> Comparison:
    """The rounds as seconds per request, and beside them the rates and the slowest percent."""
    return Comparison(
        claim=f"HTTP, one sample per request as JSON, {CONNECTIONS} connections",
        reference="FastAPI, uvicorn with 2 workers, eager PyTorch per request",
        ours=f"triptych serve --workers {WORKERS}",
        threads=1,
        reference_s=[1 / burst.requests_per_second for burst in theirs],
        ours_s=[1 / burst.requests_per_second for burst in mine],
        equal=equal,
        details={
            side: {field: statistics.median(getattr(b, field) for b in bursts) for field in Burst._fields}
            for side, bursts in (("reference", theirs), ("ours", mine))
        },
    )


@contextmanager
def eager_server() -> Iterator[str]:
    """The reference, running; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/sample"
    command = [sys.executable, "-m", "uvicorn", "triptych.bench.eager_server:app", "--log-level", "warning"]
    process = subprocess.Popen([*command, "--no-access-log", "--port", str(port), "--workers", str(WORKERS)])
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    """Return once `url` answers. Raises: TriptychError if it does not within a minute."""
    until_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            samples(url)
            return
        except OSError as error:
            if time.monotonic() > until_s:
                raise TriptychError("did not start", where="the reference") from error
            time.sleep(0.1)


def samples(url: str) -> np.ndarray:
    """The samples of one answer."""
    request = urllib.request.Request(url, BODY.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return np.array(json.load(answer)["samples"], np.float32)


def same_kind_of_answer(reference: str, ours: str) -> str:
    """Both sides give samples of one shape, finite and in [0, 1]; their noise differs by design."""
    for url in (reference, ours):
        found = samples(url)
        if found.shape != (1, 1, 28, 28) or not ((found >= 0) & (found <= 1)).all():
            raise TriptychError(f"got {found.shape}", where=url, valid="(1, 1, 28, 28) in [0, 1]")
    return "one shape, all in [0, 1]"


def load(url: str, script: Path) -> Burst:
    """One round of wrk. Raises: TriptychError if any answer was not 200."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", "--latency", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate, slow = re.search(r"Requests/sec: +([\d.]+)", said), re.search(r"99% +([\d.]+)(us|ms|s)", said)
    if "Non-2xx" in said or "Socket errors" in said or rate is None or slow is None:
        raise TriptychError(said, where=url, valid="200 for every request")
    return Burst(float(rate[1]), float(slow[1]) * UNITS_MS[slow[2]])
