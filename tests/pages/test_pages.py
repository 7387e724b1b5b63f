"""Pages hold what they are given, safely, and write themselves in one move."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from triptych import pages


def render(**values: object) -> str:
    return pages.render("demo.html", figures=[], script="beside", **values)


def test_a_missing_value_is_an_error_not_a_gap() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render()


def test_a_figure_cannot_close_the_script_it_stands_in() -> None:
    figure = pages.Figure("f", "</script><b>", [{"x": [1], "y": [2]}])
    page = pages.render("base.html", figures=[figure], script="beside")
    assert "</script><b>" not in page
    assert "<\\/script>" in page


def test_an_inline_page_needs_no_file_beside_it() -> None:
    page = pages.render("base.html", figures=[], script="inline")
    assert "plotly.min.js" not in page.split("<script>")[0]
    assert len(page) > 1_000_000


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    pages.write_page(tmp_path / "page.html", "first")
    pages.write_page(tmp_path / "page.html", "second")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "second"
