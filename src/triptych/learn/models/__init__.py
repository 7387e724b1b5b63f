"""The families.

To add one: write its file, and name it in `FAMILIES` and `ModelConfig`; the contract tests then cover it.
"""

from __future__ import annotations

from triptych.learn.models.base import Batch, Config, GenerativeModel, Graph, Progress, Terms, Turn
from triptych.learn.models.transformer import Transformer, TransformerConfig
from triptych.learn.models.vae import VAE, VAEConfig
from triptych.learn.models.vq_vae import VQVAE
from triptych.learn.models.vq_vae_config import VQVAEConfig
from triptych.learn.models.wgan_gp import WGANGP, WGANGPConfig

__all__ = [
    "FAMILIES",
    "VAE",
    "VQVAE",
    "WGANGP",
    "Batch",
    "Config",
    "GenerativeModel",
    "Graph",
    "ModelConfig",
    "Progress",
    "Terms",
    "Transformer",
    "Turn",
    "build",
]

FAMILIES: dict[str, type[GenerativeModel]] = {
    model.family: model for model in (VAE, WGANGP, Transformer, VQVAE)
}

# A tagged union: `family` says which.
ModelConfig = VAEConfig | WGANGPConfig | TransformerConfig | VQVAEConfig


def build(config: Config) -> GenerativeModel:
    """The model of a config, with fresh weights.

    >>> build(VAE.Config(latent_dim=2)).family
    'vae'
    """
    return FAMILIES[str(config.__struct_config__.tag)](config)
