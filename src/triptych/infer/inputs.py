"""Checking what a caller hands to a graph, before any library sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from triptych.bundle.manifest import GraphRecord, TensorSpec
from triptych.errors import InputError, nearest

Array = np.ndarray

TOKENS, TOTAL = "tokens", "total_sequence_length"  # of a graph that reads texts


def check(graph: GraphRecord, inputs: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of `graph` as arrays, or an `InputError` that names the input and what it takes.

    Arrays must have the exact dtype; lists and numbers are converted. Sizes that go by one name must be
    equal.
    """
    specs = graph.inputs
    given = len(inputs) if isinstance(inputs, Mapping) else -1
    if given != len(specs) or any(spec.name not in inputs for spec in specs):
        raise misnamed(graph, inputs)
    sizes: dict[str, int] = {}
    return {spec.name: check_tensor(graph.name, spec, inputs[spec.name], sizes) for spec in specs}


def misnamed(graph: GraphRecord, inputs: object) -> InputError:
    """What is wrong with inputs that are not those of `graph`."""
    names = [spec.name for spec in graph.inputs]
    if not isinstance(inputs, Mapping):
        return InputError(f"got {type(inputs).__name__}", where=graph.name, valid="arrays by name")
    if unknown := sorted(str(name) for name in set(inputs) - set(names)):
        return InputError(
            f"has no input {unknown[0]!r}",
            where=graph.name,
            valid=", ".join(names),
            remedy=nearest(unknown[0], names),
        )
    missing = next(name for name in names if name not in inputs)
    return InputError(f"input {missing!r} is missing", where=graph.name, valid=", ".join(names))


def check_tokens(graph: str, inputs: Mapping[str, Array], block_size: int) -> None:
    """Raise `InputError` for more tokens than a model sees, and for several that do not begin a text."""
    time, total = inputs[TOKENS].shape[1], inputs.get(TOTAL)
    if time > block_size:
        raise InputError(f"got {time} tokens", where=f"{graph}.{TOKENS}", valid=f"1 to {block_size}")
    if total is not None and time > 1 and total != time:
        valid = f"{time} for {time} tokens from the beginning, or one token at a time"
        raise InputError(f"got {total}", where=f"{graph}.{TOTAL}", valid=valid)


def check_tensor(graph: str, spec: TensorSpec, value: Any, sizes: dict[str, int]) -> Array:
    """One input as an array of the right dtype, shape and range.

    `sizes` collects the named sizes seen so far.
    """
    array = as_array(graph, spec, value)
    if len(array.shape) != len(spec.shape) or not all(map(fits, array.shape, spec.shape)):
        raise refused(graph, spec, f"got shape {tuple(array.shape)}")
    for size, name in zip(array.shape, spec.shape, strict=True):
        if isinstance(name, str) and sizes.setdefault(name, size) != size:
            raise refused(graph, spec, f"{name} is {size} here and {sizes[name]} in another input")
    if array.size and not is_within(array, spec):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise refused(graph, spec, "holds NaN or infinity", "finite numbers")
        valid = f"{-np.inf if spec.low is None else spec.low} to {np.inf if spec.high is None else spec.high}"
        raise refused(graph, spec, f"holds values from {array.min()} to {array.max()}", valid)
    return array if array.flags.c_contiguous else array.copy()  # `ascontiguousarray` gives a scalar an axis


def is_within(array: Array, spec: TensorSpec) -> bool:
    """Whether all numbers are finite and in the range of `spec`; each comparison with NaN is false."""
    low, high = spec.low, spec.high
    if low is not None and not array.min() >= low:
        return False
    if high is not None and not array.max() <= high:
        return False
    is_bounded = low is not None and high is not None
    return is_bounded or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def refused(graph: str, spec: TensorSpec, problem: str, valid: str = "") -> InputError:
    """The error for one input."""
    return InputError(problem, where=f"{graph}.{spec.name}", valid=valid or describe(spec))


def as_array(graph: str, spec: TensorSpec, value: Any) -> Array:
    """`value` as an array of the dtype of `spec`."""
    wanted = np.dtype(spec.dtype)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise refused(graph, spec, f"is not an array ({error})") from error
    if array.dtype == wanted:
        return array
    converts = not isinstance(value, np.ndarray) and array.dtype.kind in "iuf"
    if converts and (array.dtype.kind == "f") <= (wanted.kind == "f"):
        exact = wanted.kind == "f" or in_range(array, wanted)
        if exact:
            with np.errstate(over="ignore"):
                return array.astype(wanted)
    raise refused(graph, spec, f"got dtype {array.dtype}")


def in_range(array: Array, wanted: np.dtype[Any]) -> bool:
    """Whether every integer of `array` can be held by `wanted`."""
    limits = np.iinfo(wanted)
    return array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)


def fits(size: int, wanted: int | str) -> bool:
    """Whether a size is the wanted one; a named size may be any from 1 on."""
    return size >= 1 if isinstance(wanted, str) else size == wanted


def describe(spec: TensorSpec) -> str:
    """An input in words: dtype and shape."""
    return f"{spec.dtype} of shape ({', '.join(map(str, spec.shape))})"
