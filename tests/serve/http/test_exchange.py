"""Reading a request: media types, JSON, and how deep it may nest."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.serve.http.exchange import check_depth, choose, parse
from triptych.serve.http.openai import as_prompts
from triptych.serve.http.schemas import SampleBody

OFFERED = ("application/json", "application/x-npy", "image/png")
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


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("image/png", "image/png"),
        ("image/*", "image/png"),
        ("application/*", "application/json"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0.2, image/png;q=0.9", "image/png"),
        ("application/json;q=0", None),
        ("text/html", None),
        ("", None),
        ("image/png;q=.", "image/png"),
    ],
)
def test_the_client_s_preference_decides(header: str, chosen: str | None) -> None:
    assert choose(header, OFFERED) == chosen


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


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), ([1, 2], [(1, 2)]), (["a", "b"], ["a", "b"]), ([[1], [2, 3]], [(1,), (2, 3)])],
)
def test_prompts_come_in_four_shapes(prompt: object, prompts: list[object]) -> None:
    assert as_prompts(prompt) == prompts
