r"""A row graph with its products in eight bits: weights are rounded at export, and the range of what they are
multiplied with is fixed there.

$$ y = s_x s_w \cdot \big((q_x - o)\, q_w^T\big) + b, \quad
   q_x = \mathrm{clip}\big(\mathrm{round}(x / s_x) + o, 0, 255\big) $$

`QuantizeLinear` and `DequantizeLinear` stand around each product, so the graph is one of ONNX alone, and
engines compute the pair and the product between them in integers. These are summed exactly and the rest goes
number by number: a row's result does not depend on the rows beside it. Numbers beyond the range are clipped.

x86 processors without VNNI or AMX add pairs of products in sixteen bits, where two of the largest do not fit:
a sum is then cut off, for every row alike. Nothing here prevents it; the gate sees it, because each machine
measures for itself.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from triptych.bundle.manifest import TensorSpec
from triptych.bundle.rounded import ROWS, ROWS_SCALE
from triptych.bundle.weights import Extent
from triptych.infer.calibration import BATCH
from triptych.learn import ranges
from triptych.learn.graphs import point_outside
from triptych.learn.int8 import ROUNDING
from triptych.learn.models.base import GenerativeModel, Graph
from triptych.learn.standard import Writer

ENDING = "_int8"  # of a graph's name
LARGEST, STEPS = 127, 255  # of a weight, and of what it is multiplied with
ROOM = 1.5  # how much larger than any number seen the largest is that can be told from others
MIN_SHARE = 0.5  # of a graph's products that are rounded, or it is not worth having
PRODUCTS = ("Gemm", "Conv", "MatMul", "ConvTranspose")
NO_SHIFT = numpy_helper.from_array(np.zeros(1, np.int8))


class Steps(NamedTuple):
    """Eight bits for the numbers a layer multiplies: (q - zero) * scale, q from 0 to 255."""

    scale: float
    zero: int

    def rounded(self, x: Tensor) -> Tensor:
        """The numbers nearest to `x` that there are."""
        q = (x / self.scale).round() + self.zero
        return (q.clamp(0, STEPS) - self.zero) * self.scale


Plan = Mapping[str, Steps]  # by the name of the layer's weight


def steps(low: float, high: float) -> Steps:
    """Steps from `low` to `high`, with 0 exactly on one."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / STEPS)) or 1.0
    return Steps(scale, round(-low / scale))


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (N, ...) as int8, and the scale of each of its N parts, (N,)."""
    scale = weight.detach().abs().flatten(1).amax(1) / LARGEST
    parts = weight.detach() / spread(torch.where(scale > 0, scale, 1.0), weight)
    return parts.round().to(torch.int8), scale


def spread(scale: Tensor, weight: Tensor) -> Tensor:
    """Scales (N,) along the first axis of `weight`."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


def takes_rows(inputs: Iterable[TensorSpec]) -> bool:
    """Whether every input is a batch of rows of one size."""
    shapes = [spec.shape for spec in inputs]
    return all(shape[:1] == (BATCH,) and all(isinstance(size, int) for size in shape[1:]) for shape in shapes)


def plan(
    model: GenerativeModel, graph: Graph, traced: onnx.ModelProto, names: Mapping[tuple[Any, ...], str]
) -> Plan:
    """Which weights of a graph are rounded, and the steps of what they multiply; empty if that is too little.

    Latents have no bounds, and few numbers stand for much: what reads them stays in float32. A bounded input
    has its bounds for a range, so that the 256 values of a pixel are exact. Codes that come out would change
    at the smallest rounding.
    """
    if not takes_rows(graph.inputs) or not all(map(ranges.is_number, graph.outputs)):
        return {}
    typical = ranges.typical(model, graph)
    seen = ranges.taken(graph.module, typical, names)
    if not all(math.isfinite(each.low) and math.isfinite(each.high) for each in seen.values()):
        return {}  # parity says what is wrong with such a model
    ends = ranges.taken(graph.module, ranges.extreme(graph.inputs, typical), names)
    made_by = {output: node for node in traced.graph.node for output in node.output}
    numbers = {spec.name: ranges.is_bounded(spec) for spec in graph.inputs if ranges.is_number(spec)}
    found, kept = {}, set()
    for node in traced.graph.node:
        name = node.input[1] if is_product(node) else ""
        if name in seen:
            sources = reads(node.input[0], made_by)
            bounded = [numbers[source] for source in sources if source in numbers]
            kept |= set() if all(bounded) else {name}
            alone = bounded and not sources & made_by.keys()
            low, high, _ = ends[name] if alone else seen[name]
            found[name] = steps(low, high) if alone else steps(low * ROOM, high * ROOM)
    made = {name: each for name, each in found.items() if name not in kept}
    products = sum(each.products for each in seen.values())
    return made if sum(seen[name].products for name in made) >= MIN_SHARE * max(products, 1) else {}


def reads(value: str, made_by: Mapping[str, onnx.NodeProto]) -> set[str]:
    """What a value is made of, back to products, inputs of the graph and its initialisers."""
    if value not in made_by or made_by[value].op_type in PRODUCTS:
        return {value}
    return {name for source in made_by[value].input for name in reads(source, made_by)}


def is_product(node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution, or the product of rows and a weight's transpose, plus a bias."""
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = given.get("transB", 0) == 1 and all(given.get(name, 1) == 1 for name in ("alpha", "beta"))
    return node.op_type == "Conv" or (node.op_type == "Gemm" and plain and not given.get("transA", 0))


def rounded_weights(plans: Iterable[Plan], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rounded tensors to store."""
    found: dict[str, Tensor] = {}
    for name in sorted({name for each in plans for name in each}):
        found[name + ROWS], found[name + ROWS_SCALE] = rounded(tensors[name])
    return found


def with_rounded(
    graphs: Sequence[Graph],
    models: Sequence[onnx.ModelProto],
    plans: Mapping[str, Plan],
    names: Mapping[tuple[Any, ...], str],
    extents: Mapping[str, Extent],
) -> tuple[tuple[Graph, ...], list[onnx.ModelProto]]:
    """The graphs, each followed by itself with its products in eight bits where that is planned."""
    found: list[tuple[Graph, onnx.ModelProto]] = []
    for graph, model in zip(graphs, models, strict=True):
        found.append((graph, model))
        if chosen := plans.get(graph.name):
            own = reference(graph, chosen, names, graph.name + ENDING)
            made = rounded_graph(model, chosen, extents)
            made.graph.name = own.name
            found.append((own, made))
    return tuple(graph for graph, _ in found), [model for _, model in found]


def rounded_graph(model: onnx.ModelProto, chosen: Plan, extents: Mapping[str, Extent]) -> onnx.ModelProto:
    """A copy of a graph whose products with the weights of a plan are in eight bits."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.node[:]
    write = Writer(graph)
    for node in model.graph.node:
        if is_product(node) and node.input[1] in chosen:
            product(write, node, chosen[node.input[1]], extents[node.input[1]].shape[0])
        else:
            graph.node.append(node)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name in sorted(chosen):
        for ending, kind in ((ROWS, TensorProto.INT8), (ROWS_SCALE, TensorProto.FLOAT)):
            tensor = TensorProto(data_type=kind, dims=extents[name + ending].shape)
            point_outside(tensor, name + ending, extents[name + ending])
            graph.initializer.append(tensor)
    return made


def product(write: Writer, node: onnx.NodeProto, chosen: Steps, outputs: int) -> None:
    """Append what `node`, a product, is in eight bits.

    onnxruntime computes in integers what looks just so: a `zero` for every weight's scale, and no bias within
    `Gemm` that is a float; a convolution's it rounds by itself.
    """
    x, weight, *bias = node.input
    scale, zero = write.constant(chosen.scale, np.float32), write.constant(chosen.zero, np.uint8)
    x = write("DequantizeLinear", write("QuantizeLinear", x, scale, zero), scale, zero)
    zeros = write("ConstantOfShape", write.constant([outputs]), value=NO_SHIFT)
    weight = write("DequantizeLinear", weight + ROWS, weight + ROWS_SCALE, zeros, axis=0)
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Conv" or not bias:
        write(node.op_type, x, weight, *bias, outputs=node.output, **given)
    else:
        write("Add", write("Gemm", x, weight, transB=1), bias[0], outputs=node.output)


def reference(graph: Graph, chosen: Plan, names: Mapping[tuple[Any, ...], str], name: str) -> Graph:
    """The graph called `name` that torch computes with the same rounded numbers, so that parity compares
    arithmetic alone.
    """
    module = copy.deepcopy(graph.module)
    for path, _, weight in ranges.layers(graph.module, names):
        if weight in chosen:
            own: Any = module.get_submodule(path)
            number, scale = rounded(own.weight)
            own.weight = nn.Parameter(number * spread(scale, own.weight), requires_grad=False)
            own.register_forward_pre_hook(partial(rounds, chosen[weight]))
    return dataclasses.replace(graph, name=name, module=module, rounding=ROUNDING)


def rounds(chosen: Steps, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a layer is given, rounded: its hook."""
    return chosen.rounded(given[0]), *given[1:]
