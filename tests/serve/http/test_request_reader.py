"""A header has a limit, however it comes."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from triptych.serve.http.request_reader import MAX_HEADER_BYTES, NoRequest, RequestReader

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
SIZE = MAX_HEADER_BYTES + 1000


@pytest.mark.parametrize("fields", [b"X: " + b"x" * SIZE + b"\r\n", b"X: y\r\n" * (SIZE // 6)])
@pytest.mark.parametrize("first", [1, 1000, MAX_HEADER_BYTES - 1000, SIZE, 2 * SIZE])
def test_a_header_that_is_too_large_is_refused_wherever_it_is_cut(fields: bytes, first: int) -> None:
    arrived, whole = Mock(), HEAD + fields + b"\r\n"
    reader = RequestReader(Mock(), Mock(), arrived)
    with pytest.raises(NoRequest) as refused:  # noqa: PT012
        for part in filter(None, (whole[:first], whole[first:])):
            reader.feed(part)
    assert refused.value.status == 431
    assert not arrived.called
