"""`triptych compare RUN RUN ...`: runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN ...", help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(help="Where to write the page.")] = Path("runs/compare.html"),
) -> None:
    """Print where each run got to and in what they differ, and write a page with their curves overlaid."""
    from rich.console import Console
    from rich.table import Table

    from triptych.learn.train.compare import COLUMNS, differences, read_runs, write_comparison

    found = read_runs(runs)
    console = Console()
    results = zip(COLUMNS, *(run.cells() for run in found), strict=True)
    settings = ((key, *values) for key, values in differences(found).items())
    for rows in (results, settings):
        table = Table(show_edge=False, show_header=False)
        for row in rows:
            table.add_row(*row)
        if table.row_count:
            console.print(table)
            console.print()
    write_comparison(found, out)
    print(f"see {out}")
