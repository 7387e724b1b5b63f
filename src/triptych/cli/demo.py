"""`triptych demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="folder for runs, bundles, report.html and summary.json")] = Path(
        "runs/demo"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a setting for every training")
    ] = None,
    seed: Annotated[int, typer.Option(help="which worker is killed, and when")] = 0,
) -> None:
    """Train, export and serve three models on real data, kill a worker under load, write a report."""
    from triptych.demo import run

    raise typer.Exit(run(out, set_=tuple(set_ or ()), seed=seed))
