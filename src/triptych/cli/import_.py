"""`triptych import`: a model of another program becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A GPT-2 as transformers saves it: config.json, model.safetensors, tokenizer.json."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder: new, or a bundle to replace.")],
    name: Annotated[
        str | None, typer.Option(help="What the bundle is called; the name of its folder if not given.")
    ] = None,
) -> None:
    """Write a GPT-2 of Hugging Face's transformers as a bundle."""
    from triptych.infer import load
    from triptych.learn.imports import import_folder

    imported = import_folder(folder, out, name=name)
    for note in imported.notes:
        print(f"note: {note}")
    with load(imported.folder) as engine:
        manifest = engine.manifest
    for graph in manifest.graphs:
        apart, allowed = graph.parity.max_abs_error, graph.parity.tolerance
        print(f"{graph.file}: within {apart:.2g} of torch (allowed {allowed:.2g})")
    print(f"{manifest.name} {manifest.version} written to {imported.folder}")
