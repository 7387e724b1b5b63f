"""The next-token graph with its weights rounded to eight bits, and how much that changes.

One token reads every weight once, so a token takes as long as the weights take from memory: a quarter of the
bytes is a quarter of the time. `MatMulNBits` multiplies in integers, with a scale for each block of weights
and one for each block of a row's activations; a row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from triptych.bundle import noise
from triptych.bundle.manifest import Quality
from triptych.bundle.rounded import BLOCK, INT8, SCALE
from triptych.bundle.weights import Extent
from triptych.infer.backend import TokenDecoder
from triptych.infer.choosing import choose, log_probabilities
from triptych.infer.request import GenerationRequest
from triptych.learn.graphs import point_outside

LARGEST, MIDDLE = 127, 128
ROUNDING = 2.0**-8  # the relative error of eight bits, as parity reckons with it
ROWS, TOKENS = 8, 128  # texts that quality is measured on
LIMIT_NATS = 0.01
INTEGER_ARITHMETIC = 4  # `accuracy_level`: activations are rounded to int8 too


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    r"""A weight (N, K) in eight bits: uint8 of shape (N, blocks, BLOCK), and scales of shape (N, blocks).

    $$ q = \mathrm{round}(w / s) + 128, \quad s = \max_{\text{block}} |w| / 127 $$
    """
    blocks = pad(weight.detach(), (0, -weight.shape[1] % BLOCK)).reshape(len(weight), -1, BLOCK)
    scale = blocks.abs().amax(-1) / LARGEST
    steps = blocks / torch.where(scale > 0, scale, 1.0)[..., None]
    return (steps.round() + MIDDLE).to(torch.uint8), scale


def rounded_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The rounded tensors to store for every matrix of a model that is multiplied with."""
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    matrices = {name for name, weight in model.named_parameters() if id(weight) in linear}
    found: dict[str, Tensor] = {}
    for name in sorted(matrices & set(tensors)):
        found[name + INT8], found[name + SCALE] = rounded(tensors[name])
    return found


def rounded_graph(model: onnx.ModelProto, extents: Mapping[str, Extent]) -> onnx.ModelProto:
    """A copy of a graph that reads the rounded weights where there are any: each product with the transpose
    of a weight, and the bias added to it, become one operator."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    transposed = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    weights = {out: name for out, name in transposed.items() if name + INT8 in extents}
    biases = {bias.input[0]: bias for bias in graph.node if is_bias(bias, extents)}
    nodes: list[onnx.NodeProto] = []
    dropped: set[str] = set(weights)
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            name, bias = weights[node.input[1]], biases.get(node.output[0])
            nodes.append(product(node, name, bias, extents))
            dropped |= {bias.output[0]} if bias is not None else set()
        elif node.output[0] not in dropped:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    keep_what_is_read(graph, extents)
    return made


def is_bias(node: onnx.NodeProto, extents: Mapping[str, Extent]) -> bool:
    """Whether a node adds a vector of the model to what comes first."""
    return node.op_type == "Add" and node.input[1] in extents and len(extents[node.input[1]].shape) == 1


def product(
    node: onnx.NodeProto, name: str, bias: onnx.NodeProto | None, extents: Mapping[str, Extent]
) -> onnx.NodeProto:
    """`node`, and the `bias` after it, with rounded weights."""
    rows, columns = extents[name].shape
    return onnx.helper.make_node(
        "MatMulNBits",
        [node.input[0], name + INT8, name + SCALE, *(["", "", bias.input[1]] if bias is not None else [])],
        [node.output[0] if bias is None else bias.output[0]],
        domain="com.microsoft",
        name=node.name,
        N=rows,
        K=columns,
        bits=8,
        block_size=BLOCK,
        accuracy_level=INTEGER_ARITHMETIC,
    )


def keep_what_is_read(graph: onnx.GraphProto, extents: Mapping[str, Extent]) -> None:
    """Remove the initialisers no node reads, and add the rounded ones that are read."""
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    for name in sorted(read & {name for name in extents if name.endswith((INT8, SCALE))}):
        kind = onnx.TensorProto.UINT8 if name.endswith(INT8) else onnx.TensorProto.FLOAT
        tensor = onnx.TensorProto(data_type=kind, dims=extents[name].shape)
        point_outside(tensor, name, extents[name])
        kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def quality(exact: TokenDecoder, others: Sequence[TokenDecoder], block_size: int) -> list[Quality]:
    r"""The divergence of the next token's distribution from the exact one, in nats per token, for each other.

    $$ \mathbb{E}_{x \sim p} \frac1T \sum_t \mathrm{KL}\big(p(\cdot | x_{<t}) \| q(\cdot | x_{<t})\big) $$

    on texts drawn from the exact model: the divergence of whole texts, shared among their tokens.
    """
    request = GenerationRequest(prompt=())
    streams = [noise.stream(0, row, noise.TOKEN) for row in range(ROWS)]
    tokens, length = [0] * ROWS, min(TOKENS, block_size)
    totals = [0.0] * len(others)
    for place in range(length):
        places = [place] * ROWS
        logits = exact.step(tokens, places)
        p = log_probabilities(logits)
        for number, other in enumerate(others):
            q = log_probabilities(other.step(tokens, places))
            totals[number] += float((np.exp(p) * (p - q)).sum())
        tokens = [choose(row, request, stream.random()) for row, stream in zip(logits, streams, strict=True)]
    return [
        Quality(measure="kl_nats_per_token", value=total / (ROWS * length), limit=LIMIT_NATS)
        for total in totals
    ]


def refusal(found: Quality) -> str:
    """Why a precision of this quality may not be used; empty if it may."""
    if found.value <= found.limit:
        return ""
    return f"its tokens are {found.value:.2g} nats from those of float32, up to {found.limit:g} are allowed"
