r"""A row graph with its products in eight bits: weights rounded at export, activations as they come.

$$ y = s_x s_w \cdot (q_x q_w^T) + b, \quad q_x = \mathrm{round}(x / s_x), \quad s_x = \max |x| / 127 $$

A row has a scale of its own and integers are summed exactly, so its result does not depend on the rows beside
it; one scale for the whole batch, which onnxruntime's dynamic quantisation takes, would break that. All of it
is operators of ONNX itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from triptych.bundle.manifest import TensorSpec
from triptych.bundle.rounded import ROWS, ROWS_SCALE
from triptych.bundle.weights import Extent
from triptych.infer.calibration import BATCH
from triptych.learn.graphs import identity, point_outside
from triptych.learn.models.base import Graph
from triptych.learn.standard import Writer

LARGEST, MIDDLE = 127, 128
SMALLEST = 1e-30  # the scale of a row of zeros
MIN_SHARE = 0.5  # of a module's weights that are multiplied so, or its graph is not worth having


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (N, K) as int8, and the scale of each of its rows, (N,)."""
    scale = weight.detach().abs().amax(1) / LARGEST
    steps = weight.detach() / torch.where(scale > 0, scale, 1.0)[:, None]
    return steps.round().to(torch.int8), scale


def rounded_weights(graphs: Iterable[Graph], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rounded tensors to store for the row graphs among `graphs` that mostly multiply matrices."""
    names = {identity(tensor): name for name, tensor in tensors.items()}
    found: dict[str, Tensor] = {}
    for graph in graphs:
        if takes_rows(graph.inputs):
            for weight in matrices(graph.module):
                if name := names.get(identity(weight)):
                    found[name + ROWS], found[name + ROWS_SCALE] = rounded(weight)
    return found


def takes_rows(inputs: Iterable[TensorSpec]) -> bool:
    """Whether every input is a batch of rows of one size."""
    shapes = [spec.shape for spec in inputs]
    return all(shape[:1] == (BATCH,) and all(isinstance(size, int) for size in shape[1:]) for shape in shapes)


def matrices(module: nn.Module) -> list[Tensor]:
    """The weights of linear layers, if they are most of what the module multiplies with."""
    found = [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    whole = sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)
    return list(found) if sum(weight.numel() for weight in found) >= MIN_SHARE * max(whole, 1) else []


def rounded_graph(model: onnx.ModelProto, extents: Mapping[str, Extent]) -> onnx.ModelProto | None:
    """A copy of a graph whose products with rounded weights are in eight bits; None if it has none."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.node[:]
    write, rounded_once = Writer(graph), set()
    for node in model.graph.node:
        if is_product(node, extents):
            product(write, node)
            rounded_once.add(node.input[1])
        else:
            graph.node.append(node)
    if not rounded_once:
        return None
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for name in sorted(rounded_once):
        for ending, kind in ((ROWS, TensorProto.INT8), (ROWS_SCALE, TensorProto.FLOAT)):
            tensor = TensorProto(data_type=kind, dims=extents[name + ending].shape)
            point_outside(tensor, name + ending, extents[name + ending])
            graph.initializer.append(tensor)
    return made


def is_product(node: onnx.NodeProto, extents: Mapping[str, Extent]) -> bool:
    """Whether a node multiplies rows with the transpose of a rounded weight, and adds a bias at most."""
    if node.op_type != "Gemm" or node.input[1] + ROWS not in extents:
        return False
    given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return given.get("transB", 0) == 1 and all(given.get(name, 1) == 1 for name in ("alpha", "beta"))


def product(write: Writer, node: onnx.NodeProto) -> None:
    """Append what `node`, a product of rows and a weight, is in eight bits.

    Activations are stored from 1 to 255 about 128: processors multiply unsigned with signed bytes.
    """
    x, weight, *bias = node.input
    largest = write("ReduceMax", write("Abs", x), write.constant([-1]), keepdims=1)
    scale = write("Mul", largest, write.constant(1 / LARGEST, np.float32))
    scale = write("Max", scale, write.constant(SMALLEST, np.float32))
    steps = write("Round", write("Div", x, scale))
    steps = write("Cast", write("Add", steps, write.constant(MIDDLE, np.float32)), to=TensorProto.UINT8)
    across = write("Transpose", weight + ROWS, perm=[1, 0])
    sums = write("MatMulInteger", steps, across, write.constant(MIDDLE, np.uint8))
    scaled = write("Mul", write("Cast", sums, to=TensorProto.FLOAT), weight + ROWS_SCALE)
    if bias:
        write("Add", write("Mul", scaled, scale), bias[0], outputs=node.output)
    else:
        write("Mul", scaled, scale, outputs=node.output)
