"""Is the exported graph the same function? Measured against torch, and against itself in other batches.

Tolerance: a sum of k products in float32 is off by about eps * sqrt(k) times its size, whatever the order of
summation; over a network the k of its layers add up. So |engine - torch| may be 4 * eps * sqrt(sum of k) *
the largest output (at least 1). A graph that is further away computes something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from triptych.bundle.manifest import Parity, TensorSpec
from triptych.errors import ExportError
from triptych.infer import same_bytes
from triptych.infer.same_bytes import SIZES, Run
from triptych.learn.graphs import state
from triptych.learn.models.base import EXACT, Graph

Array = np.ndarray

PARITY_ROWS = (1, 2, 3, 16)
LARGEST, LARGEST_FLOAT = 127, float(np.finfo(np.float32).max)
MAX_TRIAL_BYTES, MAX_TRIAL_PRODUCTS = 128_000_000, 2_000_000_000  # so that an export takes seconds


@runtime_checkable
class HasTrials(Protocol):
    """A graph's module whose inputs hang together, so that it must make its own trial inputs."""

    def trials(self, rows: int, generator: torch.Generator) -> tuple[tuple[Tensor, ...], ...]:
        """Sets of inputs to compare on; row buckets are measured on the first."""
        ...


def trials(graph: Graph, rows: int, seed: int) -> tuple[tuple[Tensor, ...], ...]:
    """Inputs of `rows` rows to compare on, drawn from the ranges the graph declares."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(graph.module, HasTrials):
        return graph.module.trials(rows, generator)
    pairs = zip(graph.inputs, graph.example, strict=True)
    return (tuple(draw(spec, (rows, *example.shape[1:]), generator) for spec, example in pairs),)


def draw(spec: TensorSpec, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Random values in the range of `spec`; standard normal where it has none."""
    dtype = getattr(torch, spec.dtype)
    if not dtype.is_floating_point:
        low, high = int(spec.low or 0), int(spec.high or 0)
        return torch.randint(low, high + 1, tuple(shape), generator=generator, dtype=dtype)
    if spec.low is None or spec.high is None:
        return torch.randn(tuple(shape), generator=generator, dtype=dtype)
    return torch.rand(tuple(shape), generator=generator, dtype=dtype) * (spec.high - spec.low) + spec.low


def compare(graphs: Sequence[Graph], runs: Sequence[Run]) -> list[Parity]:
    """How far each run is from torch on several batches, for graphs made of one module, each with its run.

    Raises: ExportError beyond the tolerance, but for a graph in lower precision: whoever wants to use one is
    told that it may not (`refusal`), and has the model in float32.
    """
    found = [Distance() for _ in graphs]
    for rows in (rows for rows in PARITY_ROWS if rows <= max(3, affordable_rows(graphs[0]))):
        for inputs in trials(graphs[0], rows, seed=rows):
            with torch.no_grad():
                answer = graphs[0].module(*inputs)
            expected = [answer] if isinstance(answer, Tensor) else list(answer)
            for graph, run, distance in zip(graphs, runs, found, strict=True):
                answers = run(arrays(graph, inputs))
                for spec, reference in zip(graph.outputs, expected, strict=True):
                    distance.add(answers[spec.name], reference.numpy())
                distance.examples += rows
    return [judged(graph, distance) for graph, distance in zip(graphs, found, strict=True)]


@dataclass
class Distance:
    """The largest difference so far, the same in units of the last place, and the largest expected value."""

    worst: float = 0.0
    ulps: float = 0.0
    largest: float = 1.0
    examples: int = 0

    def add(self, found: Array, expected: Array) -> None:
        """Take in one output."""
        if found.shape != expected.shape or not np.isfinite(found).all():
            self.worst = self.ulps = math.inf
            return
        if found.dtype == np.int8:  # a cache of eight bits: its numbers are parts of their range
            found, expected = found / np.float32(LARGEST), expected / np.float32(LARGEST)
        apart = np.abs(found.astype(np.float64) - expected)
        ulps = apart / np.spacing(np.abs(expected).astype(np.float32))
        self.worst, self.ulps = max(self.worst, float(apart.max())), max(self.ulps, float(ulps.max()))
        self.largest = max(self.largest, float(np.abs(expected).max()))


def judged(graph: Graph, found: Distance) -> Parity:
    """The record of a distance. Raises `ExportError` as `compare` does."""
    allowed = tolerance(graph, found.largest)
    worst, ulps = (min(value, LARGEST_FLOAT) for value in (found.worst, found.ulps))  # JSON has no infinity
    parity = Parity(max_abs_error=worst, max_ulp_error=ulps, tolerance=allowed, examples=found.examples)
    if (problem := refusal(parity)) and graph.rounding == EXACT:
        remedy = "the exported graph computes something else"
        raise ExportError(problem, where=f"graph {graph.name}", remedy=remedy)
    return parity


def refusal(parity: Parity) -> str:
    """Why a graph so far from torch may not be used; empty if it may."""
    if parity.max_abs_error <= parity.tolerance:
        return ""
    return f"differs from torch by {parity.max_abs_error:.3g}, rounding explains {parity.tolerance:.3g}"


def tolerance(graph: Graph, largest: float) -> float:
    """How far rounding alone may take the outputs of `graph`, whose largest is `largest`."""
    terms = sum(math.prod(tensor.shape[1:]) for _, tensor in state(graph.module) if tensor.ndim >= 2)
    return 4 * graph.rounding * math.sqrt(max(terms, 1)) * largest


def row_buckets(graph: Graph, runs: Sequence[Run]) -> tuple[int, ...]:
    """The batch sizes at which every one of `runs` gives a row the same bytes in any company."""
    rows = max(size for size in SIZES if size == 1 or size <= affordable_rows(graph))
    inputs = arrays(graph, trials(graph, rows, seed=0)[0])
    return same_bytes.row_buckets(inputs, runs, [size for size in SIZES if size <= rows])


def affordable_rows(graph: Graph) -> int:
    """How many rows a trial batch may have: fewer for large inputs and for much arithmetic."""
    row = trials(graph, 1, seed=0)[0]
    positions = max((tensor.numel() for tensor in row if tensor.dtype == torch.int64), default=1)
    products = sum(tensor.numel() for _, tensor in state(graph.module) if tensor.ndim >= 2) * positions
    return min(
        MAX_TRIAL_BYTES // sum(tensor.nbytes for tensor in row), MAX_TRIAL_PRODUCTS // max(products, 1)
    )


def arrays(graph: Graph, inputs: Sequence[Tensor]) -> dict[str, Array]:
    """Inputs of a graph as the engine takes them."""
    return {spec.name: tensor.numpy() for spec, tensor in zip(graph.inputs, inputs, strict=True)}
