"""Bodies in JSON: any bytes, unknown fields, and how deep they may nest."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.serve.http.json_body import check_depth, parse
from triptych.serve.http.schemas import SampleBody

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES)
def test_depth_counts_brackets_outside_of_strings(value: object) -> None:
    body, deep = json.dumps(value).encode(), depth(value)
    check_depth(body, deep)
    if deep:
        with pytest.raises(InputError, match="deeper"):
            check_depth(body, deep - 1)


@pytest.mark.parametrize("part", [rb"\"", rb"\\", b"[],", b'"', b"[[[]]],", b"\\"])
def test_no_body_takes_long_to_check(part: bytes) -> None:
    body = b"[" * 40 + b'"' + part * (2**20 // len(part))
    started_s = time.perf_counter()
    with pytest.raises(InputError):
        parse(body, SampleBody, max_depth=32)
    assert time.perf_counter() - started_s < 1  # a few milliseconds; where it was quadratic, hours


@given(st.binary(max_size=40))
def test_any_bytes_are_a_body_or_a_refusal(body: bytes) -> None:
    try:
        parsed = parse(body, SampleBody, max_depth=8)
    except InputError as error:
        assert error.where  # noqa: PT017
    else:
        assert parsed == msgspec.json.decode(body, type=SampleBody)


def test_an_unknown_field_has_its_nearest_name() -> None:
    with pytest.raises(InputError) as caught:
        parse(b'{"sed": 1}', SampleBody, max_depth=8)
    assert (caught.value.where, caught.value.remedy) == ("sed", "did you mean `seed`?")
