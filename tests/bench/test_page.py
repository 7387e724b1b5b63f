"""The page has a row for each claim."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from triptych.bench.comparison import Comparison
from triptych.bench.page import BEGIN, main
from triptych.errors import DataError
from triptych.serve.chaos.page import END


def test_the_page_has_the_median_the_least_and_the_most_of_each_claim(tmp_path: Path) -> None:
    claim = Comparison("a | claim", "theirs", "ours", 2, [2.0, 3.0, 8.0], [1.0, 1.0, 2.0], "equal")
    unpaired = {"claim": "memory", "reference": "theirs", "ours": "ours", "ratio": 4.3}
    report, page = tmp_path / "bench.json", tmp_path / "page.md"
    report.write_text(json.dumps([claim.document(), unpaired]))
    page.write_text(f"before {BEGIN} old {END} after")
    main([report], page)
    text = page.read_text()
    assert "| a / claim | theirs | ours | 3.00x | 2.00 to 4.00 | 2 |" in text
    assert "| memory | theirs | ours | 4.30x |  |  |" in text
    assert text.startswith("before")
    assert text.endswith("after")
    assert " old " not in text


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(DataError, match="marks"):
        main([], page)
