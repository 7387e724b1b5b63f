"""Bodies that were compressed on their way: gzip and deflate, within the limit that holds for all bodies."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from triptych.errors import InputError
from triptych.serve.http.refusal import Refusal

HEADER = b"content-encoding"
WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


def plain(body: bytes, headers: Mapping[bytes, bytes], limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding; no more than `limit_bytes` of it are ever made.

    Raises: Refusal 413 when it is larger, 415 for another coding; InputError for what is damaged.

    >>> plain(zlib.compress(b"{}"), {b"content-encoding": b"deflate"}, 9)
    b'{}'
    """
    coding = headers.get(HEADER, b"identity").strip().lower()
    if coding == b"identity":
        return body
    if coding not in WINDOW_BITS:
        got, valid = coding.decode("latin-1"), b", ".join(WINDOW_BITS).decode()
        raise Refusal(415, f"got `{got}`", where="Content-Encoding", valid=valid)
    reader = zlib.decompressobj(WINDOW_BITS[coding])
    try:
        found = reader.decompress(body, limit_bytes)
        more = bool(reader.unconsumed_tail) and bool(reader.decompress(reader.unconsumed_tail, 1))
    except zlib.error as error:
        raise InputError(f"is not {coding.decode()}: {error}", where="body") from error
    if more:
        raise Refusal(
            413, f"has more than {limit_bytes} bytes", where="body", valid=f"at most {limit_bytes} bytes"
        )
    if not reader.eof or reader.unused_data:
        raise InputError(f"is not one whole piece of {coding.decode()}", where="body")
    return found
