"""`python -m triptych.serve.chaos.page REPORT.json ... PAGE.md`: put the tables of sessions into a page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from triptych.errors import DataError
from triptych.serve.chaos.experiments import EXPERIMENTS
from triptych.serve.chaos.session import Report
from triptych.serve.chaos.table import markdown

BEGIN, END = "<!-- generated: from here on by `make chaos` -->", "<!-- generated: until here -->"


def replace(page: str, generated: str, begin: str = BEGIN) -> str:
    """`page` with what stands between its two marks replaced.

    Raises: DataError unless it has both marks.
    """
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise DataError("has no marks", where="page", valid=f"{begin} and {END}")
    return f"{before}{begin}\n\n{generated}\n{END}{after}"


def catalogue() -> str:
    """Every experiment, and what is expected of it."""
    lines = ["| # | fault | expected |", "| --- | --- | --- |"]
    lines += [f"| {number} | {e.fault} | {e.expected} |" for number, e in sorted(EXPERIMENTS.items())]
    return "\n".join(lines) + "\n"


def main(reports: Sequence[Path], page: Path) -> None:
    """Rewrite `page`."""
    found = [msgspec.json.decode(report.read_bytes(), type=Report) for report in reports]
    page.write_text(replace(page.read_text(), "\n".join([catalogue(), *map(markdown, found)])))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:-1]], Path(sys.argv[-1]))
