"""Arrays to and from the V2 inference protocol, in the worker that computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from triptych.errors import InputError
from triptych.serve.bodies import as_json, from_json
from triptych.serve.kserve import DATATYPES, Inference, Tensor, pack

Array = np.ndarray
DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}


def read_tensor(part: Tensor) -> Array:
    """One input: little-endian values, or JSON numbers, nested or flat; rows first.

    Raises: InputError for an unknown datatype, or values that do not fill the shape.
    """
    dtype = DTYPES.get(part.datatype)
    if dtype is None:
        raise InputError(f"got {part.datatype}", where=f"{part.name}.datatype", valid=", ".join(DTYPES))
    try:
        flat = numbers(part, dtype) if part.is_json else np.frombuffer(part.values, dtype)
        return flat.reshape(part.shape)
    except ValueError as error:
        raise InputError(
            f"values do not fill shape {part.shape} of {part.datatype}", where=part.name
        ) from error


def numbers(part: Tensor, dtype: np.dtype[Any]) -> Array:
    """The values of a JSON input, none of which may change in becoming a `dtype`."""
    array = np.array(from_json(part.values, part.name))
    if array.size and array.dtype.kind not in "biuf":
        raise InputError("holds what is no number", where=part.name, valid=f"numbers of {part.datatype}")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if dtype.kind != "f" and not np.array_equal(cast, array):
        raise InputError(f"holds what is no {part.datatype}", where=part.name)
    return cast


def write_tensors(
    inference: Inference, arrays: Mapping[str, Array], *, model: str, version: str, more: Mapping[str, Any]
) -> bytes:
    """The answer, packed: each output that was asked for, in its form; `more` are the answer's parameters."""
    described: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, is_binary in zip(inference.outputs, inference.is_binary, strict=True):
        array = np.ascontiguousarray(arrays[name])
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        if is_binary:
            binary.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            entry["data"] = array.ravel()
        described.append(entry)
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if inference.id:
        head["id"] = inference.id
    if more:
        head["parameters"] = dict(more)
    return pack(as_json({**head, "outputs": described}), b"".join(binary))
