"""Claim: workers share the weights, so that a further one takes little more memory than an empty process."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from triptych.bench.load import Target
from triptych.bench.serve import eager_server, samples
from triptych.serve.chaos import process
from triptych.serve.chaos.server import Server

WORKERS = (1, 4)
HIDDEN = (3072, 3072)  # 100 MB of weights, half of them the decoder's
ENGINE = ("--set", "workers.engine=onnxruntime")  # OpenVINO, which `auto` might take, cannot share
REQUESTS, AT_ONCE, ROWS = 64, 16, 8
MB = 1e6


class Memory(NamedTuple):
    """What a process holds, in bytes: alone; together with others; and its share of all that it maps."""

    private: int
    shared: int
    proportional: int


@dataclass(frozen=True)
class Side:
    """A server that has answered: its processes that compute, and the share of all its processes."""

    workers: list[Memory]
    proportional: int


@dataclass(frozen=True)
class MemoryComparison:
    """Memory of two servers with few and with many workers."""

    claim: str
    reference: str
    ours: str
    weights_bytes: int
    reference_sides: dict[int, Side]
    ours_sides: dict[int, Side]

    @property
    def ratio(self) -> float:
        """How many times the memory of ours the reference takes, with most workers."""
        return self.reference_sides[max(WORKERS)].proportional / self.ours_sides[max(WORKERS)].proportional

    def document(self) -> dict[str, Any]:
        """For `--json`; sizes in bytes."""

        def described(sides: dict[int, Side]) -> dict[str, Any]:
            return {
                f"{count} worker{'s' * (count > 1)}": {
                    "workers": [memory._asdict() for memory in side.workers],
                    "proportional": side.proportional,
                }
                for count, side in sides.items()
            }

        growth = {"reference": further(self.reference_sides), "ours": further(self.ours_sides)}
        sides = {"reference_sides": described(self.reference_sides), "ours_sides": described(self.ours_sides)}
        return {**asdict(self), **sides, "a_further_worker": growth, "ratio": self.ratio}

    def cells(self) -> Sequence[str]:
        """For the table."""
        sizes = [
            " -> ".join(f"{side.proportional / MB:.0f}" for side in sides.values()) + " MB"
            for sides in (self.reference_sides, self.ours_sides)
        ]
        growth = [f"{further(sides) / MB:.0f}" for sides in (self.reference_sides, self.ours_sides)]
        said = f"a further worker: {growth[0]} MB there, {growth[1]} MB here"
        return self.claim, *sizes, f"{self.ratio:.2f}x", "1", said


def further(sides: dict[int, Side]) -> float:
    """Bytes that each worker beyond the fewest adds."""
    few, many = min(sides), max(sides)
    return (sides[many].proportional - sides[few].proportional) / (many - few)


def compare_memory(hidden: tuple[int, ...] = HIDDEN) -> list[MemoryComparison]:
    """A decoder served with one and with four workers, beside eager PyTorch, and beside weights that are not
    shared.
    """
    from triptych.bench.eager_server import decoder
    from triptych.learn.export import export

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = export(decoder(hidden), folder / "decoder")
        weights = (bundle / "model.safetensors").stat().st_size
        eager = {count: eager_side(count, hidden) for count in WORKERS}
        private, shared = (
            {count: our_side(bundle, count, folder, share=share) for count in WORKERS}
            for share in (False, True)
        )
    claim = f"memory of {' and '.join(map(str, WORKERS))} workers, {weights / MB:.0f} MB of weights"
    return [
        MemoryComparison(
            f"{claim}, beside {what}", theirs, "triptych serve, onnxruntime", weights, sides, shared
        )
        for what, theirs, sides in (
            ("eager PyTorch", "FastAPI, uvicorn, eager PyTorch", eager),
            ("weights not shared", "the same with workers.share_weights=false", private),
        )
    ]


def eager_side(count: int, hidden: tuple[int, ...]) -> Side:
    """The reference, after load on all its workers."""
    with eager_server(count, hidden) as (address, pid):
        ask(Target(f"{address}/npy", json.dumps({"n": ROWS})))
        below = process.children(pid)
        return measured([pid, *below], [each for each in below if maps(each, "libtorch_cpu")] or [pid])


def our_side(bundle: Path, count: int, folder: Path, *, share: bool) -> Side:
    """`triptych serve`, after load on all its workers; its cache is empty at first."""
    with Server(
        [bundle],
        workers=count,
        log=folder / "serve.log",
        options=(*ENGINE, "--set", f"workers.share_weights={str(share).lower()}"),
        environment={"TRIPTYCH_CACHE": str(folder / "cache")},
    ) as server:
        server.get("/readyz")  # has every worker compute
        accept = "application/x-npy"
        body = json.dumps({"n": ROWS})
        ask(Target(f"{server.address}/v1/models/{bundle.name}/sample", body, accept))
        return measured([server.pid, *process.children(server.pid)], server.worker_pids())


def ask(target: Target) -> None:
    """Many requests, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(samples, [target] * REQUESTS))


def measured(pids: Sequence[int], workers: Sequence[int]) -> Side:
    """What processes hold now."""
    os.sync()  # what was just written to a file is not counted as a process's own
    return Side([memory(pid) for pid in workers], sum(memory(pid).proportional for pid in pids))


def memory(pid: int) -> Memory:
    """What a process holds, as the kernel counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    private, shared = (
        sum(kib[f"{kind}_{state}"] for state in ("Clean", "Dirty")) for kind in ("Private", "Shared")
    )
    return Memory(private * 1024, shared * 1024, kib["Pss"] * 1024)


def maps(pid: int, library: str) -> bool:
    """Whether a process has a file of such a name in its memory."""
    return library in Path(f"/proc/{pid}/maps").read_text()
