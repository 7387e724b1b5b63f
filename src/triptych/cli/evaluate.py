"""`triptych evaluate RUN_OR_BUNDLE`: measure a trained model on the whole of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run folder or a bundle.")],
    split: Annotated[Literal["validation", "test"], typer.Option(help="What to measure on.")] = "test",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained model on the whole test or validation split of its data set."""
    import msgspec

    from triptych.learn.train.evaluation import evaluate_folder

    figures = evaluate_folder(path, split)
    if json:
        print(msgspec.json.encode(figures).decode())
        return
    width = max(map(len, figures)) + 2
    for name, value in figures.items():
        print(f"{name:{width}}{value:.6g}" if isinstance(value, float) else f"{name:{width}}{value}")
