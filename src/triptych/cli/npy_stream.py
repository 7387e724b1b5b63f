"""Samples into an .npy file as they are drawn: memory is that of one batch, whatever their number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.whole_file import whole_file

if TYPE_CHECKING:
    from triptych.infer import Engine

MIN_BATCHES_SHOWN = 16  # fewer are over before a bar could be read


def write_npy(engine: Engine, out: Path, n: int, seed: int, condition: object | None) -> None:
    """Write `n` samples to `out`, whole or not at all."""
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from triptych.infer.engine import STREAM_BATCH

    batches = engine.sample_stream(n, seed=seed, condition=condition)
    sample = engine.manifest.sample
    shape = (n, *map(int, sample.shape))
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(sample.dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    total, console = -(-n // STREAM_BATCH), Console(stderr=True)
    shown = console.is_terminal and total >= MIN_BATCHES_SHOWN
    with whole_file(out) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for batch in track(
            batches, f"{n:,} samples", total=total, console=console, disable=not shown, transient=True
        ):
            file.write(np.ascontiguousarray(batch, sample.dtype).data)
