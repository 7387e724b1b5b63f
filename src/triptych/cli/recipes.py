"""`triptych recipes`: list the shipped recipes."""

from __future__ import annotations


def recipes() -> None:
    """List the recipes that come with Triptych, with the first line of each."""
    from triptych.learn.train.recipe import shipped_recipes

    for file in shipped_recipes():
        first = file.read_text("utf-8").splitlines()[0].lstrip("# ")
        print(f"{file.stem:26}{first}")
