"""The description of the interface."""

from __future__ import annotations

from triptych.serve.http.app import ROUTES
from triptych.serve.http.openapi import describe, render


def test_every_route_says_what_it_does() -> None:
    for path, operations in describe(ROUTES)["paths"].items():
        for method, operation in operations.items():
            assert method.upper() not in operation["summary"], path
            assert operation["summary"]


def test_the_page_for_people_has_ranges_choices_and_no_raw_backticks() -> None:
    page = render(describe(ROUTES))
    assert "number from -2 to 2" in page
    assert "&quot;b64_json&quot;" in page
    assert "`" not in page
