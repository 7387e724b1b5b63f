"""A small data set and a small model, quick to train."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from triptych.learn import data as datasets
from triptych.learn.data import Dataset
from triptych.learn.models import VAE
from triptych.learn.train import Run, Trainer, rng

QUIET = {"progress": False, "report": False, "every_steps": 5, "samples": 4}


@pytest.fixture(scope="session")
def pictures() -> Dataset:
    draw = np.random.default_rng(0)
    return datasets.from_arrays(draw.integers(0, 256, (160, 1, 4, 4), dtype=np.uint8))


@pytest.fixture
def vae() -> Callable[[], VAE]:
    def make() -> VAE:
        rng.seed_all(0)
        return VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2))

    return make


@pytest.fixture
def fit(pictures: Dataset, vae: Callable[[], VAE], tmp_path: Path) -> Callable[..., Run]:
    """Train the small VAE into `tmp_path / name`; keywords are settings."""

    def run(name: str = "run", *, resume: str | None = None, **settings: object) -> Run:
        log = {**QUIET, **dict(settings.pop("log", {}))}
        callbacks = settings.pop("callbacks", ())
        settings = {"max_steps": 20, "batch_size": 16, "threads": 1, **settings}
        trainer = Trainer(out=tmp_path / name, log=log, callbacks=callbacks, **settings)
        return trainer.fit(vae(), pictures, resume=resume)

    return run
