"""Claim: an epoch of the trainer takes a fraction of the textbook loop's, and ends at the same ELBO."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from triptych.bench.comparison import Comparison
from triptych.bench.textbook import SEED, by_trainer, clocked, compare, picture_batches, validation
from triptych.learn import VAE, datasets
from triptych.learn.data.dataset import Dataset

BATCH_SIZE, STEPS = 128, 429  # an epoch of 55,000
ELBO_GATE_NATS = 0.5


def fresh() -> VAE:
    """The model that both sides start from."""
    torch.manual_seed(SEED)
    return VAE(VAE.Config())


def textbook(data: Dataset) -> VAE:
    """The loop everyone writes: eager, sigmoid, binary cross-entropy, `loss.item()` each step, plain Adam.

    It starts from our weights, takes our batches in our order and draws our noise: what is left of a
    difference in the end is rounding.
    """
    model, total = fresh(), 0.0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=False, foreach=False)
    batches = picture_batches(data, BATCH_SIZE, STEPS)
    torch.manual_seed(SEED)
    for batch in batches:
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


def compare_training() -> list[Comparison]:
    """784-400-20 on Fashion-MNIST, batch 128."""
    data = datasets.fashion_mnist()
    return compare(
        f"train a VAE 784-400-20 for an epoch of Fashion-MNIST, batch {BATCH_SIZE}",
        "textbook loop: DataLoader of PIL images, eager, loss.item() each step, unfused Adam",
        clocked(lambda: textbook(data)),
        lambda: by_trainer(fresh(), data, STEPS, batch_size=BATCH_SIZE),
        lambda model: validation(model, data),
        what="validation negative ELBO in nats",
        gate=ELBO_GATE_NATS,
    )
