"""Answers as bytes: samples and outputs written as JSON or npy inside the worker that computed them."""

from __future__ import annotations

import io

import numpy as np
import orjson

from triptych.errors import InputError

Array = np.ndarray


def as_json(value: object) -> bytes:
    """JSON bytes; an array is nested lists, a float32 the shortest text that reads back as itself."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def as_npy(array: Array) -> bytes:
    """The bytes `numpy.save` writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def from_npy(body: bytes) -> Array:
    """The array in npy bytes.

    Raises: InputError if they are not npy, are cut short, or hold Python objects.
    """
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError) as error:
        raise InputError(
            f"is not a whole npy file ({error})", where="body", valid="the bytes of numpy.save"
        ) from error
