"""JSON bodies as the structures that routes take, and how deep they may nest."""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TypeVar

import msgspec

from triptych.errors import InputError, nearest

T = TypeVar("T", bound=msgspec.Struct)

STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one level down, one up, as signed bytes
NOT_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def parse(body: bytes, kind: type[T], max_depth: int) -> T:
    """JSON bytes as a `kind`.

    Raises: InputError that names the field, what was expected, and the nearest name of an unknown one.

    >>> class Body(msgspec.Struct, forbid_unknown_fields=True):
    ...     n: int = 1
    >>> parse(b'{"n": 3}', Body, max_depth=8)
    Body(n=3)
    """
    check_depth(body, max_depth)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        where = path.strip(".`")
        unknown = re.search(r"unknown field `(.*)`", problem)
        if unknown:
            fields = kind.__struct_encode_fields__
            name = unknown[1]
            raise InputError(
                "is not known here", where=name, valid=", ".join(fields), remedy=nearest(name, fields)
            ) from error
        missing = re.search(r"missing required field `(.*)`", problem)
        if missing:
            raise InputError("is missing", where=missing[1]) from error
        raise InputError(problem, where=where or "body") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not JSON: {error}", where="body", valid="a JSON object") from error


def check_depth(body: bytes, limit: int) -> None:
    """Raise InputError if brackets nest deeper than `limit`; strings do not count.

    The time it takes is proportional to the body, whatever is in it.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    steps = without_strings(body).translate(STEPS, NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > limit:
        raise InputError(f"nests deeper than {limit}", where="body", valid=f"at most {limit} levels")


def without_strings(body: bytes) -> bytes:
    """What stands between the strings.

    >>> without_strings(rb'{"a\\"[": [1, "\\\\"]}')
    b'{: [1, ]}'
    """
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(body.split(b'"')[::2])
