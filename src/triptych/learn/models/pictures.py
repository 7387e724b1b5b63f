"""What a bundle says of a model of pictures: what a sample is, and how latents become one."""

from __future__ import annotations

from triptych.bundle.manifest import LatentSampler, TensorSpec
from triptych.learn.models.condition import label_spec


def picture_spec(shape: tuple[int | str, ...]) -> TensorSpec:
    """A picture with values in [0, 1]."""
    return TensorSpec(name="x", shape=shape, low=0.0, high=1.0)


def latent_sampler(graph: str, latent_dim: int, classes: int | None) -> LatentSampler:
    """Draw z from the prior, and have `graph` make x of it, and of a label where there are `classes`."""
    condition = next(iter(label_spec(classes)), None)
    return LatentSampler(graph=graph, input="z", output="x", latent_shape=(latent_dim,), condition=condition)
