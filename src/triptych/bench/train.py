"""Claim: an epoch of the trainer takes a fraction of the textbook loop's, and ends at the same ELBO."""

from __future__ import annotations

import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from triptych.bench.comparison import Comparison, by_turns
from triptych.errors import TriptychError
from triptych.learn import VAE, Trainer, datasets
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.split import ArraySplit

THREADS, BATCH_SIZE, REPEATS = 2, 128, 3
STEPS, SEED = 429, 0  # an epoch of 55,000
ELBO_GATE_NATS = 0.5


class Pictures(TorchDataset[Tensor]):
    """A picture and a float tensor per item, as the textbook has it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.fromarray(self.x[index, 0].numpy())
        return torch.from_numpy(np.array(image, dtype=np.float32) / 255)[None]


def textbook(data: Dataset) -> VAE:
    """The loop everyone writes: eager, sigmoid, binary cross-entropy, `loss.item()` each step, plain Adam.

    It starts from our weights, takes our batches in our order and draws our noise: what is left of a
    difference in the end is rounding.
    """
    assert isinstance(data.train, ArraySplit)
    torch.manual_seed(SEED)
    model, total = VAE(VAE.Config()), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=False, foreach=False)
    order = data.train.order(SEED, epoch=0).tolist()
    loader = iter(DataLoader(Pictures(data.train.x), BATCH_SIZE, sampler=order, drop_last=True))
    torch.manual_seed(SEED)
    for batch in islice(loader, STEPS):
        mean, log_var = model.encode(batch)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        image = torch.sigmoid(model.decoder(z))
        reconstruction = F.binary_cross_entropy(image, batch.flatten(1), reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        loss = (reconstruction + kl) / len(batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        total += loss.item()
    return model


def ours(data: Dataset) -> VAE:
    """The trainer, with its log, checkpoints and validation on."""
    torch.manual_seed(SEED)
    model = VAE(VAE.Config())
    with tempfile.TemporaryDirectory() as folder:
        log = {"progress": False, "report": False, "samples": 0}
        trainer = Trainer(
            max_steps=STEPS,
            batch_size=BATCH_SIZE,
            seed=SEED,
            threads=THREADS,
            out=Path(folder) / "run",
            log=log,
        )
        trainer.fit(model, data)
    return model


@torch.no_grad()
def negative_elbo(model: VAE, data: Dataset) -> float:
    """Nats per example over the validation split, the same noise for both sides."""
    torch.manual_seed(1)
    parts = [(model.validate(batch), weight) for batch, weight in data.validation.whole(500)]
    return sum(float(terms.total) * weight for terms, weight in parts) / sum(weight for _, weight in parts)


def compare_training() -> list[Comparison]:
    """784-400-20 on Fashion-MNIST, batch 128."""
    torch.set_num_threads(THREADS)
    data = datasets.fashion_mnist()
    theirs_nats, ours_nats = negative_elbo(textbook(data), data), negative_elbo(ours(data), data)
    if abs(theirs_nats - ours_nats) > ELBO_GATE_NATS:
        raise TriptychError(
            f"negative ELBO {theirs_nats:.2f} and {ours_nats:.2f} nats",
            where="bench train",
            valid=f"within {ELBO_GATE_NATS} nats",
        )
    reference_s, ours_s = by_turns(lambda: textbook(data), lambda: ours(data), repeats=REPEATS)
    return [
        Comparison(
            claim=f"train a VAE 784-400-20 for an epoch of Fashion-MNIST, batch {BATCH_SIZE}",
            reference="textbook loop: DataLoader of PIL images, eager, loss.item() each step, unfused Adam",
            ours="Trainer, with log, validation and checkpoint",
            threads=THREADS,
            reference_s=reference_s,
            ours_s=ours_s,
            equal=f"validation negative ELBO {theirs_nats:.2f} and {ours_nats:.2f} nats",
            details={"reference_negative_elbo_nats": theirs_nats, "ours_negative_elbo_nats": ours_nats},
        )
    ]
