"""JSON in a bundle: decoded by its schema, and no key twice, of which two readers may take either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def decode(data: bytes, kind: type[T]) -> T:
    """The JSON document `data` as a `kind`. Raises: ValueError for any other bytes."""
    try:
        found = msgspec.json.decode(data, type=kind)
        json.loads(data, object_pairs_hook=once, parse_int=str)  # str: integers of any length
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return found


def once(pairs: Sequence[tuple[str, Any]]) -> None:
    """Raise `ValueError` for a key that an object has twice."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"it has {key[:80]!r} twice")
        seen.add(key)
