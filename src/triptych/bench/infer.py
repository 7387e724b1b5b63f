"""Claim: decoding latents with the engine is faster than eager PyTorch, and gives the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

import triptych
from triptych.bench.comparison import Comparison, by_turns
from triptych.bundle import noise
from triptych.errors import ConfigError, TriptychError
from triptych.infer.calibration_store import find
from triptych.infer.ways import WAYS, Way
from triptych.learn import VAE
from triptych.learn.export import export

THREADS, LATENT = 2, 20
CALLS = {1: 100, 100: 20, 1000: 4}  # batch size: calls in a turn
REPEATS = 15
SETTLE_S = 0.02  # torch's threads spin for some 5 ms after its last call


def compare_decoding(hidden: tuple[int, ...] = (800, 400), repeats: int = REPEATS) -> list[Comparison]:
    """A decoder 20-400-800-784, at several batch sizes, by every engine and precision this machine has."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = VAE(VAE.Config(hidden=hidden, latent_dim=LATENT)).eval()
    made = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(model, Path(folder) / "decoder")
        for way in WAYS:
            try:
                engine = triptych.load(bundle, way.engine, THREADS, way.precision)
            except ConfigError:  # not installed, or not on this processor
                continue
            with engine:
                made += [compare(model, engine, way, batch, repeats) for batch in CALLS]
    return made


def compare(model: VAE, engine: triptych.Engine, way: Way, batch: int, repeats: int) -> Comparison:
    """One batch size: first within the gate of the precision, then timed."""
    z = noise.normal([0] * batch, range(batch), (LATENT,))
    latents = torch.from_numpy(z)

    def reference() -> np.ndarray:
        with torch.inference_mode():
            return model.decode(latents).numpy()

    def ours() -> np.ndarray:
        return engine.run("decode", {"z": z})["x"]

    equal = within_gate(engine, way, float(np.abs(reference() - ours()).max()))
    reference_s, ours_s = by_turns(reference, ours, repeats=repeats, calls=CALLS[batch], settle_s=SETTLE_S)
    sizes = "-".join(str(layer.in_features) for layer in model.decoder if isinstance(layer, torch.nn.Linear))
    return Comparison(
        claim=f"decode {batch} latents, {sizes}-784, {way}",
        reference="eager PyTorch in f32, inference mode",
        ours=f"{way}, with input checks",
        threads=THREADS,
        reference_s=reference_s,
        ours_s=ours_s,
        equal=equal,
    )


def within_gate(engine: triptych.Engine, way: Way, error: float) -> str:
    """What the sides' difference is beside what is allowed: by rounding in f32, by the bundle's quality
    gate below."""
    calibration = find(engine.manifest)
    assert calibration is not None  # the bundle was exported here
    found = next(m for m in calibration.measurements if (m.graph, m.engine, m.precision) == ("decode", *way))
    if found.quality is not None:
        quality = f"{found.quality.value:.2g} of {found.quality.limit:.2g} {found.quality.measure}"
        return f"largest difference {error:.2g}; {quality}"
    gate = engine.graph("decode").parity.tolerance
    if error > gate:
        raise TriptychError(
            f"the two sides differ by {error:.3g}", where="bench infer", valid=f"up to {gate:.3g}"
        )
    return f"largest difference {error:.2g}, gate {gate:.2g}"
