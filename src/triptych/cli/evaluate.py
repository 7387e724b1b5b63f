"""`triptych evaluate RUN_OR_BUNDLE`: measure a trained model on the whole of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def evaluate(
    path: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run folder or a bundle.")],
    split: Annotated[Literal["validation", "test"], typer.Option(help="What to measure on.")] = "test",
    engine: Annotated[
        str | None, typer.Option(help="A bundle: what this engine changes: auto, onnxruntime or openvino.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="A bundle: what this precision changes: bf16, int8 or auto.")
    ] = None,
    cache_precision: Annotated[
        str | None, typer.Option(help="A bundle of texts: what this cache changes: f16 or int8.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a trained model on the whole test or validation split of its data set; or what computing a
    bundle another way changes there, in nats.
    """
    import msgspec

    from triptych.learn.train.evaluation import compare_ways, evaluate_folder

    asked = {"engine": engine, "precision": precision, "cache_precision": cache_precision}
    way = {name: value for name, value in asked.items() if value is not None}
    figures = compare_ways(path, split, **way) if way else evaluate_folder(path, split)
    if json:
        print(msgspec.json.encode(figures).decode())
        return
    width = max(map(len, figures)) + 2
    for name, value in figures.items():
        print(f"{name:{width}}{value:.6g}" if isinstance(value, float) else f"{name:{width}}{value}")
