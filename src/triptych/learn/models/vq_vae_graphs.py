"""The VQ-VAE's graphs: pictures to the indices of codes, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from triptych.learn.models.vq_vae import VQVAE

CANDIDATES = 8  # pictures drawn for each that is compared
NEARLY = 1e-4  # how far a vector is moved to see whether its code is a close call, of the largest vector


class Encode(nn.Module):
    """x of shape (B, *sample_shape) to the indices of its codes, (B, h, w)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.sample_shape = (
            model.encoder,
            model.quantizer,
            model.config.sample_shape,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer.indices(self.encoder(x).permute(0, 2, 3, 1))

    def trials(self, rows: int, generator: torch.Generator) -> tuple[tuple[Tensor, ...], ...]:
        """Pictures whose codes are no close calls: of two codes that rounding cannot tell apart, either is
        right.
        """
        x = torch.rand(CANDIDATES * rows, *self.sample_shape, generator=generator)
        with torch.no_grad():
            z = self.encoder(x).permute(0, 2, 3, 1)
            moved = NEARLY * z.abs().max() * torch.randn(z.shape, generator=generator)
            ways = [self.quantizer.indices(z + step) for step in (0 * moved, moved, -moved)]
        close = (ways[0] != ways[1]) | (ways[0] != ways[2])
        return ((x[close.flatten(1).sum(1).argsort(stable=True)[:rows]],),)


class Decode(nn.Module):
    """The indices of codes, (B, h, w), to the mean picture of p(x|codes), in [0, 1], (B, *sample_shape)."""

    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.quantizer, self.decoder, self.mean = model.quantizer, model.decoder, model.likelihood.mean

    def forward(self, indices: Tensor) -> Tensor:
        return self.mean(self.decoder(self.quantizer.lookup(indices).permute(0, 3, 1, 2)))
