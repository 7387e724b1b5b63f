"""`triptych.load`: from a folder to an engine."""

from __future__ import annotations

import os

from triptych.bundle import reader
from triptych.errors import ConfigError, nearest
from triptych.infer import machine
from triptych.infer.engine import Engine
from triptych.infer.selection import (
    ANY,
    CACHE_PRECISIONS,
    ENGINES,
    OPERATORS,
    PRECISIONS,
    choices,
    token_graph,
)
from triptych.infer.ways import ChosenBackend

MAX_THREADS = 1024


def load(
    path: str | os.PathLike[str],
    engine: str = "auto",
    threads: int | None = None,
    precision: str = "f32",
    *,
    cache_precision: str = "f32",
    operators: str = ANY,
    share_weights: bool = False,
) -> Engine:
    """Check every byte of the bundle in folder `path` and open it.

    Args:
        engine: one of `ENGINES`; "auto" is, for each graph, the one that was fastest when the bundle was
            calibrated on a machine like this, and onnxruntime if it was not.
        threads: threads that one call may use; None for all the cores this process may run on.
        precision: one of `PRECISIONS`; "f32" is within rounding of torch, "bf16" computes every graph in
            bfloat16, "int8" with weights of eight bits (the steps of texts; graphs of rows, where it pays),
            "auto" takes for each graph the fastest precision that passes the bundle's gate.
        cache_precision: one of `CACHE_PRECISIONS`: that of the keys and values a text model keeps of each
            token. "f16" takes half the memory of "f32", "int8" a quarter.
        operators: one of `OPERATORS`; "standard" reads tokens by the cached step that has operators of ONNX
            alone, in float32, as readers other than onnxruntime do; slower.
        share_weights: map large weights as onnxruntime packs them from the user's cache, where the first
            process to load the bundle so puts them: all processes then share one copy, and compute the same
            bytes as without. OpenVINO packs a copy for each process.

    Raises: BundleNotFound, BundleRefused; ConfigError for a setting that is unknown, that this
        machine lacks, or that fails its gate.
    """
    for where, got, valid in (
        ("engine", engine, ENGINES),
        ("precision", precision, PRECISIONS),
        ("cache_precision", cache_precision, CACHE_PRECISIONS),
        ("operators", operators, OPERATORS),
    ):
        if got not in valid:
            remedy = nearest(str(got), valid)
            raise ConfigError(f"got {got!r}", where=where, valid=", ".join(valid), remedy=remedy)
    count = machine.cores() if threads is None else threads
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_THREADS:
        valid_threads = f"an integer from 1 to {MAX_THREADS}, or None"
        raise ConfigError(f"got {threads!r}", where="threads", valid=valid_threads)
    bundle = reader.read(path)
    tokens = token_graph(bundle.manifest, precision, cache_precision, operators)
    chosen = choices(bundle, engine, precision, count)
    return Engine(bundle, ChosenBackend(bundle, count, chosen, share_weights=share_weights), tokens)
