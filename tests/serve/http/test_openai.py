"""Bodies of the OpenAI routes."""

from __future__ import annotations

import pytest

from triptych.serve.http.openai import as_prompts


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), ([1, 2], [(1, 2)]), (["a", "b"], ["a", "b"]), ([[1], [2, 3]], [(1,), (2, 3)])],
)
def test_prompts_come_in_four_shapes(prompt: object, prompts: list[object]) -> None:
    assert as_prompts(prompt) == prompts
