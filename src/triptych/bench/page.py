"""The page of all performance claims: what `triptych bench --json` printed, as a table.

Run as a program it takes files of that output, and the page: `python -m triptych.bench.page runs/bench.json
docs/performance.md`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from triptych import __version__
from triptych.serve.chaos.page import replace
from triptych.serve.chaos.session import machine

BEGIN = "<!-- generated: from here on by `make bench` -->"


def table(documents: Iterable[Mapping[str, Any]]) -> str:
    """A row for each claim: the median ratio of its pairs, and the least and the most."""
    lines = ["| claim | reference | ours | ratio | least to most | threads |", "| --- " * 6 + "|"]
    for found in documents:
        threads = found.get("threads", "")
        words = [found["claim"], found["reference"], found["ours"], f"{found['ratio']:.2f}x", spread(found)]
        lines.append("| " + " | ".join([*(word.replace("|", "/") for word in words), str(threads)]) + " |")
    return "\n".join(lines) + "\n"


def spread(found: Mapping[str, Any]) -> str:
    """The least and the most ratio of a claim's pairs; empty for one that was not timed in pairs."""
    ratios = [r / o for r, o in zip(found.get("reference_s", ()), found.get("ours_s", ()), strict=True)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""


def main(reports: Sequence[Path], page: Path) -> None:
    """Rewrite `page`."""
    documents = [found for report in reports for found in json.loads(report.read_text())]
    measured = f"Triptych {__version__}, {datetime.now(UTC):%Y-%m-%d}, {machine()}.\n"
    page.write_text(replace(page.read_text(), f"{table(documents)}\n{measured}", BEGIN))


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:-1]], Path(sys.argv[-1]))
