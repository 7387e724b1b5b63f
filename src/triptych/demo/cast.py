"""The three models of the demo, and how long each may train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """One model: its recipe, what the demo changes in it, and what to call it."""

    name: str
    recipe: str
    title: str
    settings: tuple[str, ...] = ()


VAE = Role("vae", "vae-fashion", "VAE on Fashion-MNIST", ("train.max_epochs=8",))
GAN = Role("wgan-gp", "wgan-gp-fashion", "WGAN-GP on Fashion-MNIST")
TEXT = Role("transformer", "transformer-shakespeare", "Transformer on Shakespeare", ("train.max_steps=1000",))
CAST = (VAE, GAN, TEXT)

PROMPT = "To be, or not to be"
