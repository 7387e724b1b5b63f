"""Claim: supervised workers and batches answer more requests than FastAPI with eager PyTorch per request."""

from __future__ import annotations

import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from triptych.bench.comparison import Comparison
from triptych.bench.load import Burst, Target, burst
from triptych.errors import TriptychError
from triptych.serve.chaos.server import Server

WORKERS, CONNECTIONS = 2, 32
ROUNDS, ROUND_S = 5, 3
BODY = '{"n": 1}'
NPY = "application/x-npy"
SEED = 7
TOLERANCE = 1e-5  # of a float32 in [0, 1] behind two matrix products of at most 400 terms
START_TIMEOUT_S = 60.0

EAGER = f"FastAPI, uvicorn with {WORKERS} workers, eager PyTorch per request"
ROWS = (  # claim, reference and its target, our target
    ("JSON", EAGER, "reference json", "ours json"),
    ("JSON", f"{EAGER}, its return type declared", "reference typed json", "ours json"),
    ("npy", f"{EAGER}, npy as well", "reference npy", "ours npy"),
    ("npy", f"{EAGER}, JSON", "reference json", "ours npy"),
)


def compare_serving(rounds: int = ROUNDS, round_s: int = ROUND_S) -> list[Comparison]:
    """One sample per request, 32 connections, two processes that compute on either side, all up at once.

    The targets take turns, and a row's ratio is that of neighbours in time.
    """
    from triptych.bench.eager_server import decoder
    from triptych.learn.export import export

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = export(decoder(), folder / "decoder")
        with (
            eager_server() as (eager, _),
            Server([bundle], workers=WORKERS, log=folder / "serve.log") as server,
        ):
            targets = targets_of(eager, f"{server.address}/v1/models/decoder/sample")
            equal = check_answers(targets)
            bursts: dict[str, list[Burst]] = {key: [] for key in targets}
            for turn in range(1 + rounds):
                for key, target in targets.items():
                    seen = burst(target, connections=CONNECTIONS, seconds=round_s, folder=folder)
                    if turn:  # the first one warms up
                        bursts[key].append(seen)
    return [comparison(row, bursts, equal) for row in ROWS]


def targets_of(eager: str, ours: str) -> dict[str, Target]:
    """What is measured, by name, neighbours next to each other."""
    return {
        "reference json": Target(f"{eager}/sample", BODY),
        "ours json": Target(ours, BODY),
        "reference typed json": Target(f"{eager}/typed", BODY),
        "ours npy": Target(ours, BODY, NPY),
        "reference npy": Target(f"{eager}/npy", BODY),
    }


def comparison(row: tuple[str, str, str, str], bursts: Mapping[str, list[Burst]], equal: str) -> Comparison:
    """The rounds as seconds per request, and beside them the rates and the slowest percent of either side."""
    form, reference, theirs, mine = row
    medians = {
        side: {field: statistics.median(getattr(b, field) for b in bursts[key]) for field in Burst._fields}
        for side, key in (("reference", theirs), ("ours", mine))
    }
    return Comparison(
        claim=f"HTTP, one sample per request as {form}, {CONNECTIONS} connections",
        reference=reference,
        ours=f"triptych serve --workers {WORKERS}",
        threads=1,
        reference_s=[1 / b.requests_per_second for b in bursts[theirs]],
        ours_s=[1 / b.requests_per_second for b in bursts[mine]],
        equal=equal,
        details={**medians, "p99_share": medians["ours"]["p99_ms"] / medians["reference"]["p99_ms"]},
    )


@contextmanager
def eager_server(workers: int = WORKERS, hidden: tuple[int, ...] = (400,)) -> Iterator[tuple[str, int]]:
    """The reference, running; its address and its process id."""
    from triptych.bench.eager_server import HIDDEN

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "uvicorn", "triptych.bench.eager_server:app", "--log-level", "warning"]
    process = subprocess.Popen(
        [*command, "--no-access-log", "--port", str(port), "--workers", str(workers)],
        env={**os.environ, HIDDEN: ",".join(map(str, hidden))},
    )
    try:
        wait_for(Target(f"{address}/sample", BODY))
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for(target: Target) -> None:
    """Return once there is an answer. Raises: TriptychError if there is none within a minute."""
    until_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            samples(target)
            return
        except OSError as error:
            if time.monotonic() > until_s:
                raise TriptychError("did not start", where="the reference") from error
            time.sleep(0.1)


def samples(target: Target) -> np.ndarray:
    """The samples of one answer."""
    request = urllib.request.Request(target.url, target.body.encode(), dict(target.headers))
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
        if answer.headers["Content-Type"] == NPY:
            return np.asarray(np.load(io.BytesIO(content)))
    return np.array(json.loads(content)["samples"], np.float32)


def check_answers(targets: Mapping[str, Target]) -> str:
    """Every target answers a seed with what the model makes of that side's noise of the seed.

    Raises: TriptychError if one does not.
    """
    import torch

    from triptych.bench import eager_server as eager
    from triptych.bundle import noise

    with torch.inference_mode():
        wanted = {
            "ours": eager.model.decode(torch.from_numpy(noise.normal([SEED], [0], (eager.LATENT,)))),
            "reference": eager.model.decode(eager.noise(1, SEED)),
        }
    worst = 0.0
    for key, target in targets.items():
        found = samples(target._replace(body=json.dumps({"n": 1, "seed": SEED})))
        expected = wanted[key.partition(" ")[0]].numpy()
        if found.shape != expected.shape or not np.abs(found - expected).max() <= TOLERANCE:
            raise TriptychError(
                "is not what the model decodes", where=key, valid=f"the samples of seed {SEED}"
            )
        worst = max(worst, float(np.abs(found - expected).max()))
    return f"the model's samples of either side's noise, within {worst:.1g}"
