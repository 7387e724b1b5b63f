"""Claim: asked for three times what it can do, a server does what it can, and refuses the rest at once."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from triptych.bench.arrivals import Plan, Seen, arrive
from triptych.bench.comparison import Comparison
from triptych.bench.load import Target, burst
from triptych.serve.chaos.server import Server

WORKERS, CONNECTIONS = 2, 64
ROUNDS, ROUND_S = 5, 5
TIMES = 3  # its capacity
TIMEOUT_S = 1.0  # the deadline of each request
HIDDEN, N = (1024, 1024, 1024), 12  # of the model, and samples per request: work for some milliseconds


def compare_overload(rounds: int = ROUNDS, round_s: int = ROUND_S) -> list[Comparison]:
    """By turns: wrk with 64 connections, which is the capacity, and arrivals at three times that rate."""
    from triptych.bench.eager_server import decoder
    from triptych.learn.export import export

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = export(decoder(HIDDEN), folder / "decoder")
        with Server([bundle], workers=WORKERS, log=folder / "serve.log") as server:
            url, body = f"{server.address}/v1/models/decoder/sample", f'{{"n": {N}}}'
            target = Target(url, body, "application/x-npy")
            capacities, seen, waited = [], [], []
            for turn in range(1 + rounds):
                calm = burst(target, connections=CONNECTIONS, seconds=round_s, folder=folder)
                rate = TIMES * calm.requests_per_second
                before_s = waited_s(server.node_pid())
                crowd = arrive(Plan(url, body, rate, round_s, TIMEOUT_S))
                if turn:  # the first one warms up
                    capacities.append(calm.requests_per_second)
                    seen.append(crowd)
                    waited.append((waited_s(server.node_pid()) - before_s) / crowd.seconds)
    return [comparison(capacities, seen, waited)]


def waited_s(pid: int) -> float:
    """For how many seconds the first thread of a process was ready to run, and no core was free for it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def comparison(capacities: list[float], seen: list[Seen], waited: list[float]) -> Comparison:
    """The rounds as seconds per answer, and beside them how quickly the rest was refused."""
    refused_ms = [crowd.refused_ms for crowd in seen]
    half, most, nearly_all = (statistics.median(column) for column in zip(*refused_ms, strict=True))
    others = sum(crowd.others for crowd in seen)
    return Comparison(
        claim=f"HTTP, {TIMES} times as many requests as it can answer, at a fixed rate",
        reference=f"triptych serve --workers {WORKERS}, as many as it can answer",
        ours=f"the same server, {TIMES} times as many",
        threads=1,
        reference_s=[1 / capacity for capacity in capacities],
        ours_s=[1 / crowd.answers_per_second for crowd in seen],
        equal=f"refused within {half:.1f} ms (half), {most:.1f} ms (99 %); {others} neither 200 nor 503",
        details={
            "capacity_per_s": statistics.median(capacities),
            "refused_ms": {"p50": half, "p99": most, "p99.9": nearly_all},
            "node_waited_for_a_core": statistics.median(waited),
            "sent_late_ms_p99": statistics.median(crowd.late_ms for crowd in seen),
            "answered": sum(crowd.answered for crowd in seen),
            "refused": sum(crowd.refused for crowd in seen),
            "others": others,
        },
    )
