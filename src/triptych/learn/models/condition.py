"""Labels as an input of a network: one-hot, beside what it sees anyway.

Source: Mirza & Osindero 2014, arXiv:1411.1784, fig. 1 (both players of a GAN); Sohn et al. 2015, "Learning
Structured Output Representation using Deep Conditional Generative Models" (encoder and decoder of a VAE).
"""

from __future__ import annotations

import torch
from torch import Tensor

from triptych.bundle.condition import LABEL, row_labels
from triptych.bundle.manifest import TensorSpec
from triptych.errors import InputError


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels (B,) from 0 to `classes` - 1 as float32 rows with a single one, (B, classes).

    >>> one_hot(torch.tensor([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(torch.float32)


def join(x: Tensor, labels: Tensor | None, classes: int | None) -> Tensor:
    """`x` (..., B, D) with the one-hot labels beside it, (..., B, D + classes); `x` itself without classes.

    Raises: InputError when there are classes and no labels.
    """
    if classes is None:
        return x
    hot = one_hot(needed(labels), classes).to(x.dtype)
    return torch.cat([x, hot.expand(*x.shape[:-1], classes)], -1)


def needed(labels: Tensor | None) -> Tensor:
    """The labels that a conditional model cannot do without. Raises: InputError when there are none."""
    if labels is None:
        raise InputError(
            "are missing", where="labels", remedy="train on data with labels, or leave out classes"
        )
    return labels


def width(classes: int | None) -> int:
    """How many inputs the labels add to a layer."""
    return classes or 0


def label_spec(classes: int | None) -> tuple[TensorSpec, ...]:
    """The graph input that takes the labels, if there is one."""
    if classes is None:
        return ()
    return (TensorSpec(name=LABEL, shape=("batch",), dtype="int64", low=0, high=classes - 1),)


def example_labels(rows: int, classes: int | None) -> tuple[Tensor, ...]:
    """Labels for the example of a graph, if it takes them."""
    return () if classes is None else (torch.arange(rows) % classes,)


def sample_labels(condition: object | None, n: int, classes: int | None) -> Tensor | None:
    """The labels of `n` samples, (n,) int64, or None; see `triptych.bundle.condition.row_labels`."""
    labels = row_labels(condition, n, classes)
    return None if labels is None else torch.tensor(labels, dtype=torch.int64)
