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
    table = Table(show_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for run in found:
        table.add_row(*run.cells())
    console.print(table)
    if changed := differences(found):
        table = Table("setting", *(run.name for run in found), show_edge=False)
        for key, values in changed.items():
            table.add_row(key, *values)
        console.print()
        console.print(table)
    write_comparison(found, out)
    print(f"see {out}")
