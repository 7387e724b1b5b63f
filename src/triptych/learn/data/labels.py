"""Labels: integers from 0 without gaps, or names; anything else is said before training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triptych.errors import ConfigError, DataError, nearest

Array = np.ndarray
Names = tuple[str, ...]
SHOWN = 5  # of what is wrong


def as_labels(
    labels: Any, count: int, *, where: str, classes: Sequence[str] | None = None
) -> tuple[Tensor | None, Names]:
    """`labels` as int64, (count,), with the names of the classes; (None, ()) when there are none.

    Args:
        labels: integers, or names of classes.
        classes: the names in order, label 0 first; they may include classes of which there is no example. By
            default names are sorted, and integers must run from 0 to their largest without a gap.
    """
    if labels is None:
        if classes is not None:
            raise ConfigError("there are no labels to name", where="data.classes", remedy="give labels too")
        return None, ()
    array = _column(labels)
    if array.shape != (count,) or array.dtype.kind not in "iuU":
        raise DataError(
            f"got labels of shape {array.shape} and dtype {array.dtype}",
            where=where,
            valid=f"{count} integers or names, one per example",
            remedy="round floats first: labels.astype('int64')" if array.dtype.kind == "f" else "",
        )
    if array.dtype.kind == "U":
        names = tuple(sorted(set(array.tolist()))) if classes is None else tuple(classes)
        return torch.tensor([class_number(name, names, where=where) for name in array.tolist()]), names
    names = _numbered(array, where) if classes is None else tuple(classes)
    for extreme in (int(array.min()), int(array.max())):
        class_number(extreme, names, where=where)
    return torch.tensor(array, dtype=torch.int64), names


def class_number(label: Any, classes: Names, *, where: str) -> int:
    """The number of one label, given as that number or as a name; without `classes` any number from 0 on."""
    if isinstance(label, str):
        if label in classes:
            return classes.index(label)
        problem, remedy = f"got label {label!r}", nearest(label, classes)
    else:
        problem, remedy = f"got label {label}", ""
        if label >= 0 and (not classes or label < len(classes)):
            return int(label)
    if not classes:
        valid = "integers from 0 on"
        raise DataError(problem, where=where, valid=valid, remedy="name the classes: classes=[...]")
    shown = ", ".join(classes[:SHOWN]) + (", ..." if len(classes) > SHOWN else "")
    valid = f"0 to {len(classes) - 1}, the classes being {shown}"
    raise DataError(problem, where=where, valid=valid, remedy=remedy)


def _column(labels: Any) -> Array:
    array = labels.numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == object and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    return array


def _numbered(array: Array, where: str) -> Names:
    """The numbers from 0 to the largest as names; each must be somebody's label."""
    if array.min() < 0:
        raise DataError(f"got label {array.min()}", where=where, valid="integers from 0 on")
    present = np.unique(array)
    if len(present) <= int(array.max()):
        missing = np.setdiff1d(np.arange(min(int(array.max()), len(present) + SHOWN)), present)[:SHOWN]
        raise DataError(
            f"labels go to {array.max()}, but no example has {', '.join(map(str, missing))}",
            where=where,
            valid="0, 1, 2, ... without gaps",
            remedy="number them anew, numpy.unique(labels, return_inverse=True)[1], or name every class: "
            "classes=[...]",
        )
    return tuple(map(str, present))
