"""A header has a limit, however it comes, and what comes twice in it counts twice."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from triptych.serve.http.request_reader import MAX_HEADER_BYTES, NoRequest, RequestReader
from triptych.serve.settings import Settings

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


def test_a_field_that_comes_again_is_a_list_as_if_it_had_come_once() -> None:
    gateway, arrived = Mock(settings=Settings()), Mock()
    fields = b"Accept: a/b\r\nContent-Encoding: gzip\r\naccept: c/d\r\nContent-Encoding: gzip\r\n"
    RequestReader(gateway, Mock(), arrived).feed(HEAD + fields + b"Request-Timeout: 1\r\nX: \r\n\r\n")
    (exchange,) = arrived.call_args.args
    assert exchange.headers == {
        b"host": b"x",
        b"accept": b"a/b, c/d",
        b"content-encoding": b"gzip, gzip",
        b"request-timeout": b"1",
        b"x": b"",
    }
