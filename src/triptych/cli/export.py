"""`triptych export`: a run folder becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, as `triptych train` writes it.")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder: new, or a bundle to replace.")],
    name: Annotated[
        str | None, typer.Option(help="What the bundle is called; the folder's name if not given.")
    ] = None,
    which: Annotated[str, typer.Option(help="Which weights: best or last.")] = "best",
    raw: Annotated[
        bool, typer.Option("--raw", help="The weights themselves, not their moving average.")
    ] = False,
) -> None:
    """Write the weights of a run as a bundle that needs no torch."""
    from triptych.errors import ConfigError
    from triptych.infer import load

    if which not in ("best", "last"):
        raise ConfigError(f"got {which!r}", where="--which", valid="best, last")
    from triptych.learn.train.run import open_run

    folder = open_run(run, which=which, raw=raw).export(out, name=name)
    manifest = load(folder).manifest
    for graph in manifest.graphs:
        apart, allowed = graph.parity.max_abs_error, graph.parity.tolerance
        print(f"{graph.file}: within {apart:.2g} of torch (allowed {allowed:.2g})")
    print(f"{manifest.name} {manifest.version} written to {folder}")
