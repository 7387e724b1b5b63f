r"""The next-token graph in operators of ONNX alone, for readers without onnxruntime's `GroupQueryAttention`.

It is the traced graph with each such operator spelled out, so it takes and gives the same: keys and values of
the new tokens are scattered into the cache, what lies behind the last token is 0, and

$$ \mathrm{softmax}(\mathrm{mask}(s\,QK^T))\,V $$

over every place of the cache: a token takes the same time at any position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPERATOR, DOMAIN, TOKENS = "GroupQueryAttention", "com.microsoft", "tokens"
NEVER = np.finfo(np.float32).min  # the logit of a place that may not be looked at


def standard_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a next-token graph without operators from outside the ONNX standard."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    writer = Writer(made.graph)
    attentions = [node for node in model.graph.node if node.op_type == OPERATOR]
    places = Places(writer, attentions[0], cache_shape(model, attentions[0]))
    for node in model.graph.node:
        if node.op_type == OPERATOR:
            spell_out(writer, node, places)
        else:
            made.graph.node.append(node)
    kept = [opset for opset in model.opset_import if opset.domain != DOMAIN]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    return made


def cache_shape(model: onnx.ModelProto, node: onnx.NodeProto) -> tuple[int, int]:
    """How many places the cache has that a node reads, and how large a head is in it."""
    past = next(value for value in model.graph.input if value.name == node.input[3])
    size, width = past.type.tensor_type.shape.dim[2:4]
    return size.dim_value, width.dim_value


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node."""
    found = (helper.get_attribute_value(given) for given in node.attribute if given.name == name)
    return next(found, default)


class Writer:
    """Appends nodes and small constants to a graph, under names of its own."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._count = graph, 0
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def __call__(self, operator: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node; returns the name of its first output."""
        names = list(outputs) or [self._name(operator)]
        self._graph.node.append(helper.make_node(operator, inputs, names, name=names[0], **attributes))
        return names[0]

    def constant(self, value: object, dtype: type[np.generic] = np.int64) -> str:
        """The name of a constant, which is stored once."""
        array = np.array(value, dtype)
        key = array.dtype.name, array.tobytes(), array.shape
        if key not in self._constants:
            self._constants[key] = self("Constant", value=numpy_helper.from_array(array))
        return self._constants[key]

    def split(self, packed: str, sizes: Sequence[int]) -> list[str]:
        """The parts of the last axis."""
        names = [self._name("Split") for _ in sizes]
        self("Split", packed, self.constant(sizes), outputs=names, axis=-1)
        return names

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"standard_{kind}_{self._count}"


class Places:
    """What all layers share: where tokens stand, and what each may look at; `shape` is (size, width) of the
    cache.
    """

    def __init__(self, write: Writer, node: onnx.NodeProto, shape: tuple[int, int]) -> None:
        self.size, self.width = shape
        axis, one, zero = write.constant([0]), write.constant(1), write.constant(0)
        time = write("Squeeze", write("Shape", TOKENS, start=1, end=2), axis)
        steps = write("Range", write("Sub", one, time), one, one)
        self._last = write(
            "Unsqueeze", write("Cast", node.input[5], to=onnx.TensorProto.INT64), write.constant([1])
        )
        self.positions = write("Add", self._last, steps)  # (B, T)
        slots = write("Range", zero, write.constant(self.size), one)
        distance = write("Sub", write("Unsqueeze", self.positions, write.constant([2])), slots)
        allowed = write("GreaterOrEqual", distance, zero)
        window = attribute(node, "local_window_size", -1)
        if window > 0:
            allowed = write("And", allowed, write("Less", distance, write.constant(window)))
        self.allowed = write("Unsqueeze", allowed, write.constant([1, 2]))  # (B, 1, 1, T, S)
        total = write("Cast", node.input[6], to=onnx.TensorProto.INT64)
        used = write("And", write("LessOrEqual", slots, self._last), write("Less", slots, total))
        self.used = write("Unsqueeze", used, write.constant([1, 3]))  # (B, 1, S, 1)
        self._written = write("Unsqueeze", self.positions, write.constant([1, 3]))  # (B, 1, T, 1)
        self._scattered = ""
        self.angles = [
            write("Unsqueeze", write("Gather", table, self.positions), write.constant([2]))
            for table in node.input[7:9]
        ]

    def scattered(self, write: Writer, new: str) -> str:
        """The place in the cache of every number of `new`, a layer's keys or values, (B, N, T, D)."""
        if not self._scattered:
            self._scattered = write("Expand", self._written, write("Shape", new))
        return self._scattered


def spell_out(write: Writer, node: onnx.NodeProto, places: Places) -> None:
    """Append what `node`, a `GroupQueryAttention`, computes."""
    heads, kv_heads = attribute(node, "num_heads", 0), attribute(node, "kv_num_heads", 0)
    groups, size = heads // kv_heads, places.width
    query, key, value = (
        write("Reshape", part, write.constant([0, 0, count, size]))
        for part, count in zip(
            write.split(node.input[0], [heads * size, kv_heads * size, kv_heads * size]),
            (heads, kv_heads, kv_heads),
            strict=True,
        )
    )
    query, key = turned(write, query, places), turned(write, key, places)
    key, value = (
        cached(write, *parts, places)
        for parts in zip((key, value), node.input[3:5], node.output[1:3], strict=True)
    )
    scale = attribute(node, "scale", 0.0) or size**-0.5
    query = write("Mul", query, write.constant(scale, np.float32))
    query = write("Reshape", query, write.constant([0, 0, kv_heads, groups, size]))
    query = write("Transpose", query, perm=[0, 2, 3, 1, 4])  # (B, kv_heads, groups, T, D)
    query = write("Reshape", query, write.constant([0, kv_heads, -1, size]))
    scores = write("MatMul", query, write("Transpose", key, perm=[0, 1, 3, 2]))
    scores = write("Reshape", scores, write.constant([0, kv_heads, groups, -1, places.size]))
    masked = write("Where", places.allowed, scores, write.constant(NEVER, np.float32))
    weights = write(
        "Reshape", write("Softmax", masked, axis=-1), write.constant([0, kv_heads, -1, places.size])
    )
    mixed = write("MatMul", weights, value)
    mixed = write("Reshape", mixed, write.constant([0, kv_heads, groups, -1, size]))
    mixed = write("Transpose", mixed, perm=[0, 3, 1, 2, 4])
    write("Reshape", mixed, write.constant([0, 0, heads * size]), outputs=node.output[:1])


def turned(write: Writer, x: str, places: Places) -> str:
    """Queries or keys, (B, T, N, D), turned by their position's angle if positions are rotary."""
    if not places.angles:
        return x
    cos, sin = places.angles
    first, second = write.split(x, [places.width // 2] * 2)
    ahead = write("Sub", write("Mul", first, cos), write("Mul", second, sin))
    behind = write("Add", write("Mul", second, cos), write("Mul", first, sin))
    return write("Concat", ahead, behind, axis=-1)


def cached(write: Writer, new: str, past: str, present: str, places: Places) -> str:
    """A layer's keys or values with those of the new tokens, (B, T, N, D), among them; named `present`."""
    new = write("Transpose", new, perm=[0, 2, 1, 3])
    held = write("ScatterElements", past, places.scattered(write, new), new, axis=2)
    return write("Where", places.used, held, write.constant(0, np.float32), outputs=[present])
