"""`triptych bench`."""

from __future__ import annotations

from typing import Annotated

import typer


def bench(
    name: Annotated[str | None, typer.Argument(help="which claim; all of them when none is named")] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of a table")] = False,
) -> None:
    """Measure the performance claims, each beside its reference."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from triptych.bench import BENCHES
    from triptych.errors import ConfigError, nearest

    if name is not None and name not in BENCHES:
        raise ConfigError(
            f"got {name!r}", where="bench", valid=", ".join(BENCHES), remedy=nearest(name, BENCHES)
        )
    made = [c for key, run in BENCHES.items() if name in (None, key) for c in run()]
    if json:
        print(msgspec.json.format(msgspec.json.encode([c.document() for c in made]), indent=2).decode())
        return
    table = Table(show_edge=False)
    for column in ("claim", "reference", "ours", "ratio", "threads", "results"):
        table.add_column(column, overflow="fold")
    for c in made:
        table.add_row(*c.cells())
    Console().print(table)
