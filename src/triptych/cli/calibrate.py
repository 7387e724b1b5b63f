"""`triptych calibrate`: try every engine and precision with a bundle on this machine, and keep what was
found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    threads: Annotated[
        int | None, typer.Option(help="Threads to take times with; all cores if not given.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Measure a bundle's engines and precisions here, so that engine "auto" and others know them."""
    import msgspec

    from triptych.bundle import reader
    from triptych.cli.inspect import calibration_table, plain_console
    from triptych.errors import ConfigError
    from triptych.infer import calibration_store, machine
    from triptych.infer.calibration import calibrate as measure
    from triptych.infer.loading import MAX_THREADS

    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"got {threads}", where="--threads", valid=f"an integer from 1 to {MAX_THREADS}")
    checked = reader.read(bundle)
    found = measure(checked, threads or machine.cores())
    path = calibration_store.keep(checked.manifest, found)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    console = plain_console()
    console.print(calibration_table(found) if found.measurements else "it holds no graph of rows")
    console.print(f"kept in {path}", soft_wrap=True)
