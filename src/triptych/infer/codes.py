"""Models whose latents are grids of codes: drawing a grid token by token, and going to grids and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.bundle import noise
from triptych.bundle.manifest import CodeSampler
from triptych.errors import InputError
from triptych.infer.choosing import choose
from triptych.infer.graph_runner import GraphRunner
from triptych.infer.inputs import check_tensor
from triptych.infer.request import GenerationRequest

Array = np.ndarray

ENCODE = "encode"
TOGETHER = 64  # grids drawn at once, so that memory is bounded
AS_THE_PRIOR_HAS_IT = GenerationRequest(prompt=())  # temperature 1, nothing left out


def sample(
    engine: GraphRunner,
    sampler: CodeSampler,
    seeds: Sequence[int],
    indices: Sequence[int],
    labels: Sequence[int],
) -> Array:
    """The picture of a grid drawn for each (seed, index); see `Engine.sample_rows`.

    Args:
        labels: one per row, 0 in a model without.
    """
    start = sampler.codes + np.array(labels, np.int64)
    drawn = [
        draw(engine, sampler, seeds[held], indices[held], start[held])
        for held in (slice(at, at + TOGETHER) for at in range(0, len(seeds), TOGETHER))
    ]
    return engine.run_rows(sampler.decode_graph, {sampler.input: np.concatenate(drawn)})[sampler.output]


def draw(
    engine: GraphRunner, sampler: CodeSampler, seeds: Sequence[int], indices: Sequence[int], start: Array
) -> Array:
    """A grid for each (seed, index) after its first token, int64 of shape (n, *code_shape): code after code,
    each as likely as the prior has it.
    """
    decoder = engine.backend.decoder(engine.token_graph, len(start))
    streams = [noise.stream(seed, index, noise.TOKEN) for seed, index in zip(seeds, indices, strict=True)]
    grids = np.empty((len(start), math.prod(sampler.code_shape)), np.int64)
    tokens = start
    for place in range(grids.shape[1]):
        logits = decoder.step(tokens.tolist(), [place] * len(tokens))[:, : sampler.codes]
        for row, stream in enumerate(streams):
            grids[row, place] = choose(logits[row], AS_THE_PRIOR_HAS_IT, stream.random())
        tokens = grids[:, place]
    return grids.reshape(-1, *sampler.code_shape)


def encode(engine: GraphRunner, x: Any, condition: object | None) -> Array:
    """The grid of each example, int64 of shape (n, *code_shape)."""
    refuse(condition)
    graph = engine.graph(ENCODE)
    inputs = {graph.inputs[0].name: check_tensor(graph.name, graph.inputs[0], x, {})}
    return engine.run_rows(ENCODE, inputs)[graph.outputs[0].name]


def decode(engine: GraphRunner, sampler: CodeSampler, grids: Any, condition: object | None) -> Array:
    """The sample of each grid, (n, *sample_shape)."""
    refuse(condition)
    graph = engine.graph(sampler.decode_graph)
    inputs = {sampler.input: check_tensor(graph.name, graph.inputs[0], grids, {})}
    return engine.run_rows(graph.name, inputs)[sampler.output]


def refuse(condition: object | None) -> None:
    """A label says which grids are likely, not what they look like, so here it would have no effect.

    Raises: InputError.
    """
    if condition is not None:
        valid = "nothing: only sample looks at it"
        raise InputError(f"got {condition!r}", where="condition", valid=valid)
