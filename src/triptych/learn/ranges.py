"""What the layers of a row graph take in: measured at export, on inputs that need no data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from triptych.bundle.manifest import TensorSpec
from triptych.infer.calibration import drawn
from triptych.learn.graphs import identity
from triptych.learn.models.base import GenerativeModel, Graph

ROWS, SEED = 512, 2**32  # other rows than the gate is measured on
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Taken(NamedTuple):
    """The lowest and the highest number a layer multiplies, and how many products it forms for a row."""

    low: float
    high: float
    products: int


def taken(module: nn.Module, inputs: Sequence[Tensor], names: Mapping[Any, str]) -> dict[str, Taken]:
    """What each layer of `module` takes in on `inputs`, by the name of its weight.

    Args:
        names: the model's tensors, `identity` to name.
    """
    found: dict[str, Taken] = {}

    def hook(name: str, layer: Any, given: tuple[Tensor, ...], output: Tensor) -> None:
        x = given[0]
        low, high, products = found.get(name, Taken(math.inf, -math.inf, 0))
        products += layer.weight.numel() * positions(layer, x, output)
        found[name] = Taken(min(low, float(x.min())), max(high, float(x.max())), products)

    held = [part.register_forward_hook(partial(hook, name)) for _, part, name in layers(module, names)]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in held:
            handle.remove()
    return found


def layers(module: nn.Module, names: Mapping[Any, str]) -> Iterator[tuple[str, nn.Module, str]]:
    """Each part of `module` that multiplies with a weight: its path, itself, and the weight's name."""
    for path, part in module.named_modules():
        if isinstance(part, LAYERS + TRANSPOSED) and (name := names.get(identity(part.weight))):
            yield path, part, name


def positions(layer: Any, x: Tensor, output: Tensor) -> int:
    """At how many places of a row a layer's weight is used."""
    if isinstance(layer, TRANSPOSED):
        return x.numel() // (len(x) * layer.in_channels)
    return output.numel() // (len(output) * len(layer.weight))


def typical(model: GenerativeModel, graph: Graph) -> tuple[Tensor, ...]:
    """`ROWS` rows of what a graph will be given: latents from the prior, samples of the model where a sample
    goes in, and labels or codes at random.
    """
    sample, made = model.sample_spec().shape, []
    for place, spec in enumerate(graph.inputs):
        shape = tuple(map(int, spec.shape[1:]))
        if shape == sample and graph.name != model.sampler().graph:
            made.append(model.sample(ROWS, seed=SEED))
        else:
            made.append(torch.from_numpy(drawn(spec, (ROWS, *shape), seed=SEED + place)))
    return tuple(made)


def extreme(specs: Iterable[TensorSpec], rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Two rows like `rows` in which all numbers of a bounded input are the lowest, and the highest."""
    made = []
    for spec, given in zip(specs, rows, strict=True):
        ends = given[:2].clone()
        if is_bounded(spec):
            ends[0], ends[1] = float(spec.low or 0), float(spec.high or 0)
        made.append(ends)
    return tuple(made)


def is_number(spec: TensorSpec) -> bool:
    """Whether an input is of numbers that have an order and a size, unlike labels and codes."""
    return spec.dtype.startswith("float")


def is_bounded(spec: TensorSpec) -> bool:
    """Whether an input is of numbers, and says how small and how large they can be."""
    return is_number(spec) and spec.low is not None and spec.high is not None
