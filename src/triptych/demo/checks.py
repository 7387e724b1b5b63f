"""What the demo claims, checked: the demo succeeds only if every one of these held."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import triptych
from triptych.demo.cast import PROMPT
from triptych.demo.fault import Fault
from triptych.demo.runs import TrainedRun
from triptych.serve.chaos.load import Request, Tally
from triptych.serve.chaos.server import Server


@dataclass(frozen=True)
class Check:
    """A claim, whether it held, and the figure behind it."""

    name: str
    held: bool
    detail: str


def losses_fell(run: TrainedRun) -> Check:
    """The watched validation metric is lower at the end than before training."""
    first, last = run.validations()[0][1], run.validations()[-1][1]
    return Check(f"{run.role.name}: validation {run.metric} fell", last < first, f"{first:.4g} to {last:.4g}")


def post(server: Server, path: str, body: dict[str, object], accept: str) -> bytes:
    """The body of the answer to one request; any other status than 200 is an error."""
    connection = server.connect()
    try:
        connection.request(
            "POST", path, json.dumps(body), {"Content-Type": "application/json", "Accept": accept}
        )
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise OSError(f"{path}: {response.status} {answer[:300].decode(errors='replace')}")
        return answer
    finally:
        connection.close()


def images_equal(server: Server, bundle: Path, *, n: int, seed: int) -> list[Check]:
    """Samples over HTTP are finite, in range, and byte for byte what the library draws here."""
    name = bundle.name
    body = post(server, f"/v1/models/{name}/sample", {"n": n, "seed": seed}, "application/x-npy")
    served = np.load(io.BytesIO(body))
    with triptych.load(bundle) as engine:
        local, spec = engine.sample(n, seed=seed), engine.manifest.sample
    low, high = float(served.min()), float(served.max())
    in_range = bool(np.isfinite(served).all()) and (spec.low or 0.0) <= low and high <= (spec.high or 1.0)
    return [
        Check(
            f"{name}: samples are finite and in range", in_range, f"{served.shape}, {low:.3f} to {high:.3f}"
        ),
        Check(
            f"{name}: served bytes equal local bytes",
            served.tobytes() == local.tobytes() and served.shape == local.shape,
            f"{n} samples of seed {seed}, {served.nbytes:,} bytes",
        ),
    ]


def text_equal(server: Server, bundle: Path, *, max_tokens: int, seed: int) -> tuple[Check, str]:
    """The completion over HTTP is the text that the library generates here."""
    request: dict[str, object] = {
        "model": bundle.name,
        "prompt": PROMPT,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    body = json.loads(post(server, "/v1/completions", {**request, "temperature": 0.8}, "application/json"))
    served = str(body["choices"][0]["text"])
    with triptych.load(bundle) as engine:
        local = engine.generate(PROMPT, max_tokens=max_tokens, temperature=0.8, seed=seed).text
    check = Check(
        f"{bundle.name}: served text equals local text",
        served == local and len(served) > 0,
        f"{max_tokens} tokens of seed {seed}",
    )
    return check, PROMPT + served


def picture_of(server: Server, name: str, *, n: int, seed: int) -> str:
    """The served PNG as a data URI."""
    body = post(server, f"/v1/models/{name}/sample", {"n": n, "seed": seed}, "image/png")
    return "data:image/png;base64," + base64.b64encode(body).decode()


def no_errors(name: str, tally: Tally) -> Check:
    """Every request of a load was answered with 200."""
    detail = f"{len(tally.answers):,} requests, {len(tally.errors)} errors"
    if tally.errors:
        detail += f"; first: {tally.errors[0].error}"
    return Check(name, not tally.errors and len(tally.answers) > 0, detail)


def same_bytes(calm: Tally, fault: Fault, requests: list[Request]) -> Check:
    """Each request got one and the same answer throughout, before and after the kill."""
    before, during = calm.digests(), fault.tally.digests()
    differing = [n for n, seen in during.items() if seen != before.get(n)]
    return Check(
        "bytes during the fault equal those of the calm run",
        not differing and len(before) == len(requests) and all(len(seen) == 1 for seen in before.values()),
        f"{len(during)} different requests compared, {len(differing)} differ",
    )


def replaced(fault: Fault) -> Check:
    """The killed worker's place was taken by a new process."""
    held = fault.replacement_pid is not None and fault.replacement_pid != fault.killed_pid
    detail = f"pid {fault.killed_pid} to {fault.replacement_pid} in {fault.seconds_to_restart:.2f} s"
    return Check("the killed worker was replaced", held, detail)


def drained(server: Server) -> Check:
    """SIGTERM ended the server with everything answered."""
    return Check("SIGTERM drained the server", server.exit_code == 0, f"exit code {server.exit_code}")
