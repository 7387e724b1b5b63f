"""Which media type an answer has: what the client prefers of what there is."""

from __future__ import annotations

import pytest

from triptych.serve.http.media_types import choose

OFFERED = ("application/json", "application/x-npy", "image/png")


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
