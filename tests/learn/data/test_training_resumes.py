"""Training on data read anew or streamed: cut off and resumed, it ends with the bytes of a calm run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from triptych.learn import data as datasets
from triptych.learn.data import Dataset
from triptych.learn.models import VAE, GenerativeModel, Transformer
from triptych.learn.train import Moment, Trainer, rng

LOG = {"progress": False, "report": False, "every_steps": 3, "samples": 2}
SETTINGS = {"max_steps": 20, "batch_size": 16, "validate_every_steps": 10, "checkpoint_every_steps": 4}


class Shifted(TorchDataset):
    """Digits moved at random by torch's and numpy's generators."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> torch.Tensor:
        moved = np.roll(self.x[index], np.random.randint(8), axis=-1)
        return torch.from_numpy(moved).roll(int(torch.randint(8, ())), dims=-2)


def from_items(digits, *_) -> Dataset:
    return datasets.from_torch(Shifted(digits[0]), binarize="dynamic")


def from_loaders(digits, *_) -> Dataset:
    loader = DataLoader(Shifted(digits[0]), batch_size=16, shuffle=True)
    return datasets.from_loaders(loader, DataLoader(Shifted(digits[0]), batch_size=40), binarize="dynamic")


def from_stream(_, pictures, __) -> Dataset:
    stream = pictures.to_iterable_dataset(num_shards=2)
    sizes = {"validation": 10, "test": 10, "examples_per_epoch": 60, "shuffle_buffer": 48}
    return datasets.from_hugging_face(stream, binarize="dynamic", **sizes)


def from_text_stream(_, __, documents) -> Dataset:
    sizes = {"validation": 5, "test": 5, "examples_per_epoch": 60, "shuffle_buffer": 48}
    stream = documents.to_iterable_dataset()
    return datasets.from_hugging_face(stream, vocab_size=280, block_size=8, **sizes)


def model_of(data: Dataset) -> GenerativeModel:
    rng.seed_all(0)
    if data.spec.kind == "text":
        return Transformer(Transformer.Config(**data.known_fields(), layers=1, heads=2, width=8))
    return VAE(VAE.Config(**data.known_fields(), hidden=(8,), latent_dim=2))


def cut(moment: Moment) -> None:
    if moment.row["step"] >= 15:
        raise KeyboardInterrupt


@pytest.mark.parametrize("source", [from_items, from_loaders, from_stream, from_text_stream])
def test_a_cut_run_ends_with_the_bytes_of_a_calm_one(
    source: Callable[..., Dataset], digits, pictures, documents, tmp_path: Path
) -> None:
    def fit(name: str, callbacks=(), resume=None) -> None:
        data = source(digits, pictures, documents)
        trainer = Trainer(out=tmp_path / name, log=LOG, callbacks=callbacks, **SETTINGS)
        trainer.fit(model_of(data), data, resume=resume)

    fit("calm")
    with pytest.raises(KeyboardInterrupt):
        fit("cut", callbacks=(cut,))
    fit("cut", resume="auto")
    for file in ("model", "optimizer", "rng"):
        calm, resumed = (
            tmp_path / run / "checkpoints" / "last" / f"{file}.safetensors" for run in ("calm", "cut")
        )
        assert calm.read_bytes() == resumed.read_bytes(), file
