"""Claim: bundle and server are ready in a fraction of the time torch takes to import, every byte checked."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

import triptych
from triptych.bench.comparison import Comparison, by_turns
from triptych.bench.eager_server import decoder
from triptych.bench.load import Target
from triptych.bench.serve import BODY, EAGER, WORKERS, eager_server, wait_for
from triptych.bundle import noise
from triptych.errors import TriptychError
from triptych.learn import VAE
from triptych.learn.export import export
from triptych.learn.models.vae import VAEConfig
from triptych.serve.chaos.server import Server

THREADS, REPEATS, LATENT = 2, 7, 64
CONFIG = VAEConfig(hidden=(3072, 3072), latent_dim=LATENT)  # 100 MB of weights
PYTHON = (sys.executable, "-c")
TORCH = """
import sys, torch
from safetensors.torch import load_file
from triptych.learn import VAE
torch.set_num_threads(2)
model = VAE(VAE.Config(hidden=({0}, {0}), latent_dim={1})).eval()
model.load_state_dict(load_file(sys.argv[1] + "/model.safetensors"), strict=False)
with torch.inference_mode():
    model.decode(torch.randn(1, {1}))
"""
OURS = "import sys, triptych; triptych.load(sys.argv[1], threads=2).sample(1)"


def compare_loading(config: VAEConfig = CONFIG, repeats: int = REPEATS) -> list[Comparison]:
    """To the first sample of a large bundle, in a running process and from nothing; to the command's help;
    and to a server's first answer.
    """
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(VAE(config), Path(folder) / "large")
        size = f"{(bundle / 'model.safetensors').stat().st_size / 1e6:.0f} MB"
        width, latent = config.hidden[0], config.latent_dim
        return [
            in_process(config, bundle, size, repeats),
            from_nothing(
                f"from nothing to the first sample, {size}",
                (
                    "import torch, the weights into a module",
                    [*PYTHON, TORCH.format(width, latent), str(bundle)],
                ),
                ("import triptych, load, every byte checked", [*PYTHON, OURS, str(bundle)]),
                repeats,
            ),
            from_nothing(
                "triptych --help",
                ("import torch", [*PYTHON, "import torch"]),
                ("triptych --help", [sys.executable, "-m", "triptych", "--help"]),
                repeats,
            ),
            to_ready(Path(folder), repeats),
        ]


def to_ready(folder: Path, repeats: int) -> Comparison:
    """Servers of a small decoder with two workers, from nothing to their first answer, by turns."""
    bundle = export(decoder(), folder / "decoder")

    def reference() -> float:
        started_s = time.monotonic()
        with eager_server():
            return time.monotonic() - started_s

    def ours() -> float:
        started_s = time.monotonic()
        with Server([bundle], workers=WORKERS, log=folder / "serve.log") as server:
            wait_for(Target(f"{server.address}/v1/models/{bundle.name}/sample", BODY))
            return time.monotonic() - started_s

    pairs = [(reference(), ours()) for _ in range(repeats)]
    return Comparison(
        claim="a server of a small decoder, from nothing to its first answer",
        reference=EAGER,
        ours=f"triptych serve --workers {WORKERS}",
        threads=1,
        reference_s=[pair[0] for pair in pairs],
        ours_s=[pair[1] for pair in pairs],
        equal="both answered",
    )


def in_process(config: VAEConfig, bundle: Path, size: str, repeats: int) -> Comparison:
    """`triptych.load` and one sample, beside the same weights into a new module and one decoding."""
    latent = torch.from_numpy(noise.normal([0], [0], (config.latent_dim,)))

    def reference() -> np.ndarray:
        model = VAE(config).eval()
        model.load_state_dict(load_file(bundle / "model.safetensors"), strict=False)  # rounded ones too
        with torch.inference_mode():
            return model.decode(latent).numpy()

    def ours() -> np.ndarray:
        with triptych.load(bundle, threads=THREADS) as engine:
            return engine.sample(1)

    with triptych.load(bundle, threads=THREADS) as engine:
        gate = engine.graph("decode").parity.tolerance
    error = float(np.abs(reference() - ours()).max())
    if error > gate:
        raise TriptychError(
            f"the two sides differ by {error:.3g}", where="bench load", valid=f"up to {gate:.3g}"
        )
    reference_s, ours_s = by_turns(reference, ours, repeats=repeats)
    return Comparison(
        claim=f"load and the first sample, {size}",
        reference="the weights into a module, nothing checked",
        ours="triptych.load, every byte checked",
        threads=THREADS,
        reference_s=reference_s,
        ours_s=ours_s,
        equal=f"largest difference {error:.2g}, gate {gate:.2g}",
    )


def from_nothing(
    claim: str, reference: tuple[str, Sequence[str]], ours: tuple[str, Sequence[str]], repeats: int
) -> Comparison:
    """Two commands, each in a new process."""
    reference_s, ours_s = by_turns(run(reference[1]), run(ours[1]), repeats=repeats)
    return Comparison(
        claim=claim,
        reference=reference[0],
        ours=ours[0],
        threads=THREADS,
        reference_s=reference_s,
        ours_s=ours_s,
        equal="both ended well",
    )


def run(command: Sequence[str]) -> Callable[[], object]:
    """A call that runs a command to its end, and raises when it fails."""
    return lambda: subprocess.run(command, check=True, capture_output=True, timeout=120)
