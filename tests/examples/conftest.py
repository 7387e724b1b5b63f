"""Bundles for the examples to read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from triptych.learn import VAE, VQVAE, Transformer
from triptych.learn.data.text import bpe_tokenizer
from triptych.learn.export import export


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four untrained bundles: `images`, `kinds` (conditional), `codes` and `text` (bytes)."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    export(VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2)), folder / "images")
    export(VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2, classes=3)), folder / "kinds")
    small = {"channels": (4,), "codes": 4, "code_dim": 2, "prior_layers": 1, "prior_width": 8}
    export(VQVAE(VQVAE.Config(sample_shape=(1, 4, 4), **small)), folder / "codes")
    model = Transformer(Transformer.Config(vocab_size=260, block_size=24, layers=1, heads=2, width=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    export(model, folder / "text", tokenizer=bpe_tokenizer(["to be"], 260).to_str())
    return folder
