"""Answers as bytes: samples and outputs written as JSON or npy inside the worker that computed them."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import orjson

from triptych.errors import InputError

Array = np.ndarray
# what numpy raises for a header that is no literal, nests too deep, or has sizes beyond 64 bits
UNREADABLE = (ValueError, EOFError, OSError, SyntaxError, MemoryError, OverflowError, RecursionError)


def as_json(value: object) -> bytes:
    """JSON bytes; an array is nested lists, a float32 the shortest text that reads back as itself."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def from_json(body: bytes, where: str) -> Any:
    """The value in JSON bytes.

    Raises: InputError about `where` for a number that no float holds, or a text that is not UTF-8.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=where, valid="numbers") from error


def as_npy(array: Array) -> bytes:
    """The bytes `numpy.save` writes."""
    return npy_header(array.dtype, array.shape) + array.tobytes()


@lru_cache(maxsize=256)
def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before the numbers of an array in C order."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def from_npy(body: bytes) -> Array:
    """The array in npy bytes.

    Raises: InputError if they are not npy, are cut short, or hold Python objects.
    """
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)  # type: ignore[no-any-return]
    except UNREADABLE as error:
        raise InputError(
            f"is not a whole npy file ({error})", where="body", valid="the bytes of numpy.save"
        ) from error
