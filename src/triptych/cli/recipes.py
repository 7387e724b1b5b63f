"""`triptych recipes`: list the shipped recipes."""

from __future__ import annotations


def recipes() -> None:
    """List the recipes that come with Triptych: what each reproduces, and how long it takes on 2 cores."""
    from rich.console import Console
    from rich.table import Table

    from triptych.learn.train.recipe import about, shipped_recipes

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a pipe has no width to wrap to
        for file in shipped_recipes():
            print(f"{file.stem:26}" + about(file).replace("\n", "\n" + 26 * " "))
        return
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for file in shipped_recipes():
        table.add_row(file.stem, about(file))
    console.print(table)
