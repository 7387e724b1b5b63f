"""What a sample may be conditioned on: a label. Pure Python, so that a gateway can check it too."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import SupportsIndex

from triptych.errors import InputError, nearest

LABEL = "label"


def row_labels(condition: object | None, n: int, classes: int | None) -> list[int] | None:
    """The label of each of `n` samples, or None for a model that takes no condition.

    Args:
        condition: `{"label": 3}` for one label, `{"label": [3, 1, ...]}` for one each. None is a label of
            each class in turn, sample number i having label i modulo `classes`.
        classes: labels are 0 to `classes` - 1; None for a model that takes no condition.

    Raises: InputError for a condition that the model does not take.

    >>> row_labels({"label": 3}, 2, 10), row_labels(None, 4, 3)
    ([3, 3], [0, 1, 2, 0])
    """
    if classes is None:
        if condition is None:
            return None
        raise InputError(
            f"got {condition!r}", where="condition", valid="nothing: this model takes no condition"
        )
    if condition is None:
        return [number % classes for number in range(n)]
    if not isinstance(condition, Mapping) or set(condition) != {LABEL}:
        remedy = nearest(str(next(iter(condition), "")), [LABEL]) if isinstance(condition, Mapping) else ""
        valid = f'{{"label": 0 to {classes - 1}}}, or a list of {n} labels'
        raise InputError(f"got {condition!r}", where="condition", valid=valid, remedy=remedy)
    given = condition[LABEL]
    given = given.tolist() if hasattr(given, "tolist") else given  # an array, or a number of one
    if isinstance(given, list | tuple):
        if len(given) != n:
            raise InputError(
                f"got {len(given)} labels",
                where="condition.label",
                valid=f"one label, or {n}, one per sample",
            )
        return [check_label(label, classes) for label in given]
    return [check_label(given, classes)] * n


def check_label(label: object, classes: int) -> int:
    """`label` if it is an integer from 0 to `classes` - 1, else `InputError`."""
    if not isinstance(label, bool) and isinstance(label, SupportsIndex) and 0 <= index(label) < classes:
        return index(label)
    raise InputError(f"got {label!r}", where="condition.label", valid=f"an integer from 0 to {classes - 1}")
