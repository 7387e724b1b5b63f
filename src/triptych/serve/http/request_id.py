"""What a request is called in its answer and in the log: the client's own name for it, or one made here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from itertools import count

HEADER = b"x-request-id"
MAX_CHARACTERS = 128

is_safe = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % MAX_CHARACTERS).fullmatch
_process, _numbers = secrets.token_hex(6).encode(), count(1)


def request_id(headers: Mapping[bytes, bytes]) -> bytes:
    """The `X-Request-Id` of a request; a new one if it has none, or one that is long or could spoil a log.

    >>> request_id({b"x-request-id": b"order-7"})
    b'order-7'
    """
    given = headers.get(HEADER)
    if given is not None and is_safe(given):
        return given
    return b"%b-%x" % (_process, next(_numbers))
