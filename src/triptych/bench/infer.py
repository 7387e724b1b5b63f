"""Claim: decoding latents with the engine is faster than eager PyTorch, and gives the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

import triptych
from triptych.bench.comparison import Comparison, by_turns
from triptych.bundle import noise
from triptych.errors import TriptychError
from triptych.learn import VAE
from triptych.learn.export import export

THREADS, LATENT = 2, 20
BATCHES = (1, 100, 1000)
REPEATS, CALLS = 15, 30


def compare_decoding() -> list[Comparison]:
    """A decoder 20-400-800-784, at several batch sizes."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = VAE(VAE.Config(hidden=(800, 400), latent_dim=LATENT)).eval()
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(model, Path(folder) / "decoder")
        with triptych.load(bundle, threads=THREADS) as engine:
            return [compare(model, engine, batch) for batch in BATCHES]


def compare(model: VAE, engine: triptych.Engine, batch: int) -> Comparison:
    """One batch size: first equal within the bundle's parity gate, then timed."""
    z = noise.normal([0] * batch, range(batch), (LATENT,))
    latents = torch.from_numpy(z)

    def reference() -> np.ndarray:
        with torch.inference_mode():
            return model.decode(latents).numpy()

    def ours() -> np.ndarray:
        return engine.run("decode", {"z": z})["x"]

    error, gate = float(np.abs(reference() - ours()).max()), engine.graph("decode").parity.tolerance
    if error > gate:
        raise TriptychError(
            f"the two sides differ by {error:.3g}", where="bench infer", valid=f"up to {gate:.3g}"
        )
    reference_s, ours_s = by_turns(reference, ours, repeats=REPEATS, calls=CALLS)
    return Comparison(
        claim=f"decode {batch} latents, 20-400-800-784",
        reference="eager PyTorch, inference mode",
        ours=f"{engine.backend.name}, with input checks",
        threads=THREADS,
        reference_s=reference_s,
        ours_s=ours_s,
        equal=f"largest difference {error:.2g}, gate {gate:.2g}",
    )
