"""From a torch module to an ONNX graph without weights.

Torch's exporter is asked not to optimise: its constant folding would store transposed copies of weights. Each
initialiser is found among the model's own tensors by its storage, takes the tensor's name, and becomes
external data: a byte range of the one weights file.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from triptych.bundle.manifest import WEIGHTS
from triptych.bundle.weights import Extent
from triptych.errors import ExportError
from triptych.learn.models.base import Graph

MAX_INLINE_BYTES = 256
OPERATOR_SET = 20


def to_onnx(graph: Graph, names: Mapping[tuple[Any, ...], str]) -> onnx.ModelProto:
    """The ONNX graph of `graph`, its weights named and left out; `locate` says where they are.

    Args:
        names: the model's tensors, `identity` to name.

    Raises: ExportError when the graph holds a float constant that is no tensor of the model.
    """
    model = trace(graph)
    of_module = dict(state(graph.module))
    renamed = {}
    for tensor in model.graph.initializer:
        if tensor.name in of_module and (name := names.get(identity(of_module[tensor.name]))):
            renamed[tensor.name] = name
            leave_out(tensor, name)
        elif len(tensor.raw_data) > MAX_INLINE_BYTES:
            raise copied(graph.name, tensor.name, list(tensor.dims))
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for where, tensor in constants(model.graph):
        if tensor.ByteSize() > MAX_INLINE_BYTES:
            raise copied(graph.name, where, list(tensor.dims))
    strip(model, graph)
    return model


def locate(model: onnx.ModelProto, extents: Mapping[str, Extent]) -> None:
    """Say where in the weights file the tensors lie that `to_onnx` left out.

    Args:
        extents: where each name lies.
    """
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            point_outside(tensor, tensor.name, extents[tensor.name])


def trace(graph: Graph) -> onnx.ModelProto:
    """What torch's exporter makes of the module, unoptimised, batch and time free."""
    free = {
        name: torch.export.Dim(name) for spec in graph.inputs for name in spec.shape if isinstance(name, str)
    }
    shapes: list[Any] = [
        {axis: free[size] for axis, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in graph.inputs
    ]
    kinds = [parameter.kind for parameter in signature(graph.module.forward).parameters.values()]
    if Parameter.VAR_POSITIONAL in kinds:  # torch wants the shapes of *rest as one tuple
        rest = kinds.index(Parameter.VAR_POSITIONAL)
        shapes[rest:] = [tuple(shapes[rest:])]
    log, level = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations, on the way through its exporter
            program = torch.onnx.export(
                graph.module,
                graph.example,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPERATOR_SET,
                input_names=[spec.name for spec in graph.inputs],
                output_names=[spec.name for spec in graph.outputs],
                dynamic_shapes=shapes,
            )
    except Exception as error:
        raise ExportError(f"torch cannot export it ({error})", where=f"graph {graph.name}") from error
    finally:
        log.setLevel(level)
    assert program is not None  # only the old exporter returns nothing
    model: onnx.ModelProto = program.model_proto
    return model


def state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer, under each of its names."""
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def identity(tensor: Tensor) -> tuple[Any, ...]:
    """What two names of one tensor have in common: the same bytes, read in the same way."""
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def leave_out(tensor: onnx.TensorProto, name: str) -> None:
    """Make an initialiser an external one, which lies nowhere yet."""
    tensor.name = name
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL


def point_outside(tensor: onnx.TensorProto, name: str, extent: Extent) -> None:
    """Make an initialiser refer to a byte range of the weights file."""
    leave_out(tensor, name)
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", extent.offset), ("length", extent.size_bytes)):
        tensor.external_data.add(key=key, value=str(value))


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Tensors in attributes of nodes, subgraphs included."""
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield node.name, tensor
            for inner in (attribute.g, *attribute.graphs):
                yield from constants(inner)


def copied(graph: str, name: str, shape: list[int]) -> ExportError:
    """The error for a constant that is not one of the model's tensors."""
    problem = f"{name} of shape {shape} is a constant that is no tensor of the model (a copy of a weight?)"
    remedy = "register it as a buffer of the model, and use weights in torch's own layout"
    return ExportError(problem, where=f"graph {graph}", remedy=remedy)


def strip(model: onnx.ModelProto, graph: Graph) -> None:
    """Remove what differs from machine to machine (paths, stack traces), and name what is left."""
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    for part in (*model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    del model.graph.value_info[:]
    model.graph.name, model.producer_name = graph.name, "triptych"
    model.producer_version, model.doc_string = "", ""


def check(file: Path, graph: Graph) -> None:
    """Refuse a written graph that is not valid ONNX, or whose inputs and outputs are not those declared."""
    where = f"graph {graph.name}"
    try:
        onnx.checker.check_model(file)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"is not valid ONNX ({error})", where=where) from error
    model = onnx.load(file, load_external_data=False)
    for specs, values in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
        names, found = [spec.name for spec in specs], [value.name for value in values]
        if names != found:
            raise ExportError(
                f"has {', '.join(found)}", where=where, valid=f"the declared {', '.join(names)}"
            )
