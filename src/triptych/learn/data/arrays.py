"""From arrays to splits: what is wrong with the data is said before training starts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from triptych.errors import DataError
from triptych.learn.data.split import ArraySplit, generator

Array = np.ndarray
Binarize = Literal["none", "fixed", "dynamic"]


def as_examples(x: Any, *, where: str) -> Tensor:
    """`x` as a uint8 (0 to 255) or float32 (0 to 1) tensor of shape (N, *sample_shape), N >= 1; else
    `DataError`.
    """
    try:
        array = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
    except ValueError as error:
        raise DataError("the examples are ragged", where=where, remedy="bring them to one shape") from error
    if array.dtype == object:
        raise DataError("the examples are ragged", where=where, remedy="bring them to one shape")
    if array.ndim < 2 or array.size == 0:
        raise DataError(f"got shape {array.shape}", where=where, valid="(N, *sample_shape) with N >= 1")
    if array.ndim == 4 and array.shape[-1] in (1, 3, 4) and min(array.shape[1:3]) > 4:
        raise DataError(
            f"got shape {array.shape}, with the channels last",
            where=where,
            valid="(N, C, H, W)",
            remedy="move them to the front: x.transpose(0, 3, 1, 2)",
        )
    if array.dtype == np.uint8:
        return torch.tensor(array)
    if array.dtype.kind != "f":
        fitting = "float32" if array.dtype == bool else "uint8"
        raise DataError(
            f"got dtype {array.dtype}",
            where=where,
            valid="uint8 from 0 to 255, or floats from 0 to 1",
            remedy=f"convert the array, for example with `.astype('{fitting}')`",
        )
    finite = np.isfinite(array)
    if not finite.all():
        at = ", ".join(str(index) for index in np.unravel_index(finite.argmin(), finite.shape))
        raise DataError(
            f"{(~finite).sum()} values are NaN or infinite, the first at [{at}]",
            where=where,
            remedy="clean the array, or leave such examples out",
        )
    if array.min() < 0 or array.max() > 1:
        raise DataError(
            f"got values from {array.min():g} to {array.max():g}",
            where=where,
            valid="floats from 0 to 1",
            remedy="scale them: (x - x.min()) / (x.max() - x.min())",
        )
    return torch.tensor(array, dtype=torch.float32)


def content_digest(*tensors: Tensor | None) -> str:
    """SHA-256 of the values, shapes and types of the examples and labels."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def parts(count: int, fractions: Sequence[float], seed: int, *, where: str) -> list[Tensor]:
    """Disjoint random index sets: the rest first, then one per fraction; each has at least one example.

    A whole number from 1 on is no fraction but how many.
    """
    sizes = [
        size if isinstance(size, int) and size >= 1 else max(1, round(count * size)) for size in fractions
    ]
    if min(fractions, default=0) < 0 or sum(sizes) >= count:
        shares = ", ".join(f"{fraction:g}" for fraction in fractions)
        raise DataError(
            f"{count} examples cannot give parts of {shares} and leave some to train on",
            where=where,
            remedy="give more examples or smaller parts",
        )
    order = torch.randperm(count, generator=generator(seed))
    return list(torch.split(order, [count - sum(sizes), *sizes]))


def array_split(x: Tensor, labels: Tensor | None, binarize: Binarize, seed: int) -> ArraySplit:
    """A split of these examples; `fixed` binarisation is drawn here, once, by `seed`."""
    if binarize == "fixed":
        p = x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x
        x = torch.bernoulli(p, generator=generator(seed)).to(torch.uint8) * 255
    return ArraySplit(x, labels, dynamic=binarize == "dynamic")
