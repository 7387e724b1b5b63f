"""A header has a limit, however it comes."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from triptych.serve.http.request_reader import MAX_HEADER_BYTES, NoRequest, RequestReader

TOO_LONG = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (MAX_HEADER_BYTES + 1000) + b"\r\n\r\n"


@pytest.mark.parametrize("first", [1, 1000, MAX_HEADER_BYTES - 1000, len(TOO_LONG) - 1, len(TOO_LONG)])
def test_a_header_that_is_too_large_is_refused_wherever_it_is_cut(first: int) -> None:
    arrived = Mock()
    reader = RequestReader(Mock(), Mock(), arrived)
    with pytest.raises(NoRequest) as refused:  # noqa: PT012
        for part in filter(None, (TOO_LONG[:first], TOO_LONG[first:])):
            reader.feed(part)
    assert refused.value.status == 431
    assert not arrived.called
