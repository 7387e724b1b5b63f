"""Answers as bytes: samples and outputs written as JSON or npy inside the worker that computed them."""

from __future__ import annotations

import io

import msgspec
import numpy as np

from triptych.errors import InputError

Array = np.ndarray
encode_json = msgspec.json.Encoder().encode


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
