r"""The next-token graph with a cache of sixteen or eight bits a number, and what torch computes with one.

In eight bits each channel of a head has a scale of its own, fixed at export:

$$ q = \mathrm{clip}\big(\mathrm{round}(x / s), -128, 127\big), \quad s = 1.25 \max |x| / 127 $$

with the maximum over texts drawn from the model. A scale that followed the numbers would make a step rewrite
what the cache holds, and onnxruntime's operator takes none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from triptych.bundle import noise
from triptych.bundle.manifest import TensorSpec
from triptych.bundle.rounded import CACHE_SCALE
from triptych.bundle.weights import Extent
from triptych.infer.choosing import choose
from triptych.infer.request import GenerationRequest
from triptych.learn.graphs import point_outside
from triptych.learn.models.base import Graph

OPERATOR = "GroupQueryAttention"
PAST, PRESENT = "past_", "present_"
DTYPES = {"f16": "float16", "int8": "int8"}
KINDS = {"f16": TensorProto.FLOAT16, "int8": TensorProto.INT8}
ROUNDING = {"f16": 2.0**-11, "int8": 2.0**-8}  # relative errors, as parity reckons with them
LOWEST, LARGEST = -128, 127
ROOM = 1.25  # how much larger than any number seen the largest is that the cache can hold
ROWS, TOKENS = 8, 64  # texts that the scales are measured on
FIRST_SCALE = 12  # which input of the operator it is


class RoundedCache(nn.Module):
    """A next-token module that keeps its cache in `precision`; `scales` are those of eight bits, a layer's
    keys, its values, the next layer's, (kv_heads, head_dim) each."""

    def __init__(self, exact: nn.Module, precision: str, scales: Sequence[Tensor]) -> None:
        super().__init__()
        self.exact, self.precision = exact, precision
        self.scales = [scale[:, None] for scale in scales]  # no buffers: the graph knows them by other names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `exact` gives for a cache that was rounded before, its own cache rounded."""
        lengths, past = inputs[:3], inputs[3:]
        logits, *present = self.exact(*lengths, *map(self.restored, past, self.scales))
        return logits, *map(self.rounded, present, self.scales)

    def rounded(self, numbers: Tensor, scale: Tensor) -> Tensor:
        """Keys or values as the cache holds them."""
        if self.precision == "f16":
            return numbers.half()
        return (numbers / scale).round().clamp(LOWEST, LARGEST).to(torch.int8)

    def restored(self, held: Tensor, scale: Tensor) -> Tensor:
        """Keys or values as they are computed with."""
        return held.float() if self.precision == "f16" else held * scale

    def trials(self, rows: int, generator: torch.Generator) -> tuple[tuple[Tensor, ...], ...]:
        """The trials of `exact`, their caches rounded."""
        exact: Any = self.exact
        return tuple(
            (*inputs[:3], *map(self.rounded, inputs[3:], self.scales))
            for inputs in exact.trials(rows, generator)
        )


def rounded_reference(exact: Graph, precision: str, scales: Sequence[Tensor]) -> Graph:
    """The next-token graph `exact` with its cache in `precision`, as torch computes it."""
    module = RoundedCache(exact.module, precision, scales)
    inputs, outputs = (
        tuple(rounded_spec(spec, precision) for spec in side) for side in (exact.inputs, exact.outputs)
    )
    example = module.trials(2, torch.Generator().manual_seed(0))[1]
    return Graph(exact.name, module, inputs, outputs, example, max(exact.rounding, ROUNDING[precision]))


def rounded_spec(spec: TensorSpec, precision: str) -> TensorSpec:
    """An input or output, in `precision` if it is part of the cache."""
    if not spec.name.startswith((PAST, PRESENT)):
        return spec
    return TensorSpec(name=spec.name, shape=spec.shape, dtype=DTYPES[precision])


def scales(exact: Graph, start_token: int) -> dict[str, Tensor]:
    """The scales of an int8 cache by the name they are stored under, (kv_heads, head_dim) each."""
    past = [spec for spec in exact.inputs if spec.name.startswith(PAST)]
    size = int(past[0].shape[2])
    text = drawn(exact, past, start_token, min(TOKENS, size)).flatten()
    text = text.repeat(-(-size // len(text)))  # every position is seen at least once
    largest = [torch.zeros(()) for _ in past]
    for block in text[: len(text) // size * size].reshape(-1, size):
        last = torch.tensor([size - 1], dtype=torch.int32)
        _, *present = exact.module(block[None], last, last[0] + 1, *empty(past, 1, size))
        largest = [
            torch.maximum(seen, held.abs().amax((0, 2))) for seen, held in zip(largest, present, strict=True)
        ]
    return {
        spec.name.removeprefix(PAST) + CACHE_SCALE: torch.where(seen > 0, seen * ROOM / LARGEST, 1.0)
        for spec, seen in zip(past, largest, strict=True)
    }


def drawn(exact: Graph, past: Sequence[TensorSpec], start_token: int, length: int) -> Tensor:
    """Texts of the model itself, (ROWS, length)."""
    streams = [noise.stream(0, row, noise.TOKEN) for row in range(ROWS)]
    cache, size = empty(past, ROWS, length), torch.tensor(length, dtype=torch.int32)
    tokens = torch.full((ROWS, 1), start_token)
    request = GenerationRequest(prompt=())
    for place in range(length - 1):
        last = torch.full((ROWS,), place, dtype=torch.int32)
        logits, *cache = exact.module(tokens[:, -1:], last, size, *cache)
        made = [
            choose(row, request, stream.random()) for row, stream in zip(logits.numpy(), streams, strict=True)
        ]
        tokens = torch.cat((tokens, torch.tensor(made)[:, None]), dim=1)
    return tokens


def empty(past: Sequence[TensorSpec], rows: int, size: int) -> list[Tensor]:
    """A cache of `size` places that holds nothing yet."""
    return [torch.zeros(rows, int(spec.shape[1]), size, int(spec.shape[3])) for spec in past]


def rounded_cache(model: onnx.ModelProto, precision: str, extents: Mapping[str, Extent]) -> onnx.ModelProto:
    """A copy of a next-token graph whose cache is in `precision`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    for value in chain(graph.input, graph.output):
        if value.name.startswith((PAST, PRESENT)):
            value.type.tensor_type.elem_type = KINDS[precision]
    if precision == "int8":
        scale_attention(graph, extents)
    else:
        nodes = list(in_halves(graph.node))
        del graph.node[:]
        graph.node.extend(nodes)
    return made


def scale_attention(graph: onnx.GraphProto, extents: Mapping[str, Extent]) -> None:
    """Give every attention the scales of its cache."""
    for node in graph.node:
        if node.op_type != OPERATOR:
            continue
        names = [past.removeprefix(PAST) + CACHE_SCALE for past in node.input[3:5]]
        node.input.extend([""] * (FIRST_SCALE - len(node.input)) + names)
        kinds = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        node.attribute.extend(helper.make_attribute(key, value) for key, value in kinds.items())
        for name in names:
            tensor = TensorProto(data_type=TensorProto.FLOAT, dims=extents[name].shape)
            point_outside(tensor, name, extents[name])
            graph.initializer.append(tensor)


def in_halves(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, every attention taking and giving float16: the operator has one type for all it reads."""
    tables: dict[str, str] = {}
    for node in nodes:
        if node.op_type != OPERATOR:
            yield node
            continue
        for place in (0, 7, 8):  # what is attended with, and the cosines and sines of rotary positions
            name = node.input[place] if place < len(node.input) else ""
            if name and name not in tables:
                tables[name] = f"{name}_f16"
                yield cast(name, tables[name], TensorProto.FLOAT16)
            if name:
                node.input[place] = tables[name]
        mixed, node.output[0] = node.output[0], f"{node.output[0]}_f16"
        yield node
        yield cast(f"{mixed}_f16", mixed, TensorProto.FLOAT)


def cast(source: str, name: str, kind: int) -> onnx.NodeProto:
    """A node that rounds or restores."""
    return helper.make_node("Cast", [source], [name], name=name, to=kind)


def with_rounded_caches(
    graphs: Sequence[Graph],
    models: Sequence[onnx.ModelProto],
    scales: Sequence[Tensor],
    extents: Mapping[str, Extent],
) -> Iterator[tuple[Graph, onnx.ModelProto]]:
    """Each of some graphs of one module with each cache there is; those of one cache share a module."""
    for precision in DTYPES:
        reference = rounded_reference(graphs[0], precision, scales)
        for graph, model in zip(graphs, models, strict=True):
            rounding = max(graph.rounding, reference.rounding)
            name = f"{graph.name}_cache_{precision}"
            yield (
                dataclasses.replace(reference, name=name, rounding=rounding),
                rounded_cache(model, precision, extents),
            )
