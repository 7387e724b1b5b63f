"""Claim: the trainer takes WGAN-GP steps faster than the plain eager loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.bench.comparison import Comparison
from triptych.bench.textbook import SEED, by_trainer, clocked, compare, picture_batches, validation
from triptych.learn import WGANGP, datasets
from triptych.learn.data.dataset import Dataset

BATCH_SIZE, STEPS, CRITIC_UPDATES = 64, 100, 5
SLICED_W1_GATE = 0.02


def fresh() -> WGANGP:
    """The model that both sides start from."""
    torch.manual_seed(SEED)
    return WGANGP(WGANGP.Config(critic_updates=CRITIC_UPDATES))


def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty as it is usually written."""
    alpha = torch.rand(len(real), 1)
    between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    score = critic(between)
    (slope,) = torch.autograd.grad(score, between, torch.ones_like(score), create_graph=True)
    steepness: Tensor = (slope.norm(2, dim=1) - 1) ** 2
    return 10 * steepness.mean()


def textbook(data: Dataset) -> WGANGP:
    """The loop of the tutorials: five critic updates and one of the generator, `loss.item()` after each."""
    model, total = fresh(), 0.0
    critic, generator = model.critic, model.generator
    optimizers = [
        torch.optim.Adam(player.parameters(), lr=1e-4, betas=(0.5, 0.9), fused=False, foreach=False)
        for player in (critic, generator)
    ]
    batches = picture_batches(data, BATCH_SIZE, STEPS * CRITIC_UPDATES)
    torch.manual_seed(SEED)
    for _ in range(STEPS):
        for _ in range(CRITIC_UPDATES):
            real = 2 * next(batches).flatten(1) - 1
            fake = torch.tanh(generator(torch.randn(len(real), model.config.latent_dim))).detach()
            loss = critic(fake).mean() - critic(real).mean() + penalty(critic, real, fake)
            optimizers[0].zero_grad()
            torch.autograd.backward(loss)
            optimizers[0].step()
            total += loss.item()
        loss = -critic(torch.tanh(generator(torch.randn(BATCH_SIZE, model.config.latent_dim)))).mean()
        optimizers[1].zero_grad()
        torch.autograd.backward(loss)
        optimizers[1].step()
        total += loss.item()
    return model


def compare_gan_training() -> list[Comparison]:
    """100-256-512-784 against 784-512-256-1 on Fashion-MNIST, batch 64."""
    data = datasets.fashion_mnist()
    return compare(
        f"train a WGAN-GP: {STEPS} steps of {CRITIC_UPDATES} + 1 updates, Fashion-MNIST, batch {BATCH_SIZE}",
        "plain loop: DataLoader of PIL images, eager, loss.item() after each update, unfused Adam",
        clocked(lambda: textbook(data)),
        lambda: by_trainer(fresh(), data, STEPS, steps_only=True, batch_size=BATCH_SIZE),
        lambda model: validation(model, data),
        what="validation sliced Wasserstein-1",
        steps=STEPS,
        gate=SLICED_W1_GATE,
    )
