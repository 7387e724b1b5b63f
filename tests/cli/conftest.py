"""Running the command line in this process, and bundles to run it on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from triptych import cli
from triptych.learn import VAE, Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

Outcome = tuple[int, str, str]


@pytest.fixture
def triptych(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`triptych(*words)` gives exit code, standard output and standard error."""

    def run(*words: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["triptych", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, error = capfd.readouterr()
        return int(end.value.code or 0), out, error

    return run


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three untrained bundles: `images`, `kinds` (conditional) and `text`."""
    folder = tmp_path_factory.mktemp("bundles")
    torch.manual_seed(0)
    export(VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2)), folder / "images")
    export(VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2, classes=3)), folder / "kinds")
    config = Transformer.Config(vocab_size=4, block_size=8, layers=1, heads=1, width=16)
    export(Transformer(config), folder / "text", tokenizer=character_tokenizer("abc\n").to_str())
    return folder
