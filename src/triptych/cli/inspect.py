"""`triptych inspect`: check every byte of a bundle, and say what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from triptych.bundle.manifest import Calibration, GraphRecord, Manifest

SHOWN_SIZES = (1, 100, 1000)  # batches; `--json` has all that were measured


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Check a bundle's digests, weights and graphs, and show what it holds."""
    from triptych.infer import calibration_store, load

    with load(bundle) as engine:
        engine.open()
        manifest = engine.manifest
    if json:
        print((bundle / "manifest.json").read_text("utf-8"), end="")
        return
    console = plain_console()
    for table in (facts(manifest), graphs(manifest.graphs), files(manifest)):
        console.print(table)
    if (known := calibration_store.find(manifest)) is not None and known.measurements:
        console.print(calibration_table(known))
    else:
        console.print("its engines were not measured on a machine like this: triptych calibrate does that")
    console.print("every byte is as it was written")


def plain_console() -> Console:
    """A console that shows words of a manifest as they are: "[best]" and ":key:" are no markup there."""
    from rich.console import Console

    return Console(markup=False, emoji=False)


def facts(manifest: Manifest) -> Table:
    """What the bundle is."""
    from rich.table import Table

    table = Table(title=manifest.name, show_header=False, title_justify="left")
    shape = " x ".join(map(str, manifest.sample.shape))
    table.add_row("family", manifest.family)
    table.add_row("version", manifest.version)
    table.add_row("format", str(manifest.format_version))
    table.add_row("a sample", f"{manifest.sample.name}: {manifest.sample.dtype}, {shape}")
    table.add_row(
        "made with", ", ".join(f"{name} {version}" for name, version in manifest.created_with.items())
    )
    return table


def graphs(records: tuple[GraphRecord, ...]) -> Table:
    """What can be run."""
    from rich.table import Table

    from triptych.bundle.card import summary

    table = Table(
        "graph", "inputs", "outputs", "error", "allowed", "batch sizes", title="Graphs", title_justify="left"
    )
    for record in records:
        table.add_row(
            record.name,
            summary(record.inputs).replace("`", ""),
            summary(record.outputs).replace("`", ""),
            f"{record.parity.max_abs_error:.2g}",
            f"{record.parity.tolerance:.2g}",
            ", ".join(map(str, record.row_buckets)) or "as given",
        )
    return table


def calibration_table(calibration: Calibration) -> Table:
    """What each engine did at each precision."""
    from rich.table import Table

    title = f"Engines on {calibration.processor}, {calibration.threads} threads"
    table = Table("graph", "engine", "precision", "error", "quality", title=title, title_justify="left")
    table.add_column("ms, by batch size")
    for found in calibration.measurements:
        quality = found.quality
        shown = sorted({nearest_size(found.latency_s, wanted) for wanted in SHOWN_SIZES} - {0})
        times = [f"{size}: {found.latency_s[size] * 1000:.2g}" for size in shown]
        table.add_row(
            found.graph,
            found.engine,
            found.precision,
            f"{found.max_abs_error:.2g}",
            "" if quality is None else f"{quality.value:.2g} of {quality.limit:.2g} {quality.measure}",
            f"refused: {found.refused}" if found.refused else "\n".join(times),
        )
    return table


def nearest_size(measured: Mapping[int, float], wanted: int) -> int:
    """The batch size that was measured and is nearest to `wanted`; 0 if none was."""
    return min(measured, key=lambda size: abs(size - wanted), default=0)


def files(manifest: Manifest) -> Table:
    """What lies in the folder."""
    from rich.table import Table

    table = Table("file", "bytes", "SHA-256", title="Files", title_justify="left")
    for name, record in manifest.files.items():
        table.add_row(name, f"{record.size_bytes:,}", record.sha256[:16])
    return table
