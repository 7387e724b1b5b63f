"""Quantisers: vectors to the numbers of codes, and numbers to codes.

Each takes vectors along the last axis, and has `forward` (the indices of the codes, (...), and the codes with
the gradients of the vectors, (..., Z)), `indices` (the first alone), `lookup` (indices to codes) and `number`
(codes to indices, also after rounding to bfloat16).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from triptych.learn.maths import quantization as vq

WINDOW = 0.99  # decay of the moving averages, about a hundred updates
NEVER = 1e-12  # a share of all vectors too small to say anything


class Quantizer(nn.Module):
    """Counts how its codes are used: `usage` is a moving average of their shares, which begins at 0."""

    usage: Tensor

    def __init__(self, codes: int, dim: int, decay: float = WINDOW) -> None:
        super().__init__()
        self.codes, self.dim, self.decay = codes, dim, decay
        self.register_buffer("usage", torch.zeros(codes))

    def statistics(self, z: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """What `absorb` needs of a batch: means over its vectors, code by code."""
        ones = torch.ones(indices.numel(), device=z.device)
        return {"usage": vq.per_code(ones, indices.flatten(), self.codes)}

    @torch.no_grad()
    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Take in a batch."""
        self.follow("usage", statistics["usage"])

    def follow(self, name: str, fresh: Tensor) -> None:
        """Move an average a little."""
        average = self.get_buffer(name)
        average.copy_(vq.ema(average, fresh, self.decay))

    def perplexity(self) -> Tensor:
        """Of the codes of the last updates; 1 before the first."""
        return vq.perplexity(self.usage / self.usage.sum().clamp(min=NEVER))


class VectorQuantizer(Quantizer):
    """A codebook of `codes` vectors of size `dim`: a parameter, for a loss to move.

    Source: van den Oord et al. 2017, arXiv:1711.00937, section 3; codes start as in their own code.
    """

    codebook: Tensor

    def __init__(self, codes: int, dim: int, decay: float = WINDOW) -> None:
        super().__init__(codes, dim, decay)
        self.codebook = nn.Parameter(torch.empty(codes, dim).uniform_(-1 / codes, 1 / codes))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The index of each vector's code, (...), and the code with the gradient of the vector, (..., Z)."""
        indices = self.indices(z)
        return indices, vq.straight_through(z, self.lookup(indices))

    def indices(self, z: Tensor) -> Tensor:
        """The index of the nearest code of each vector: (..., Z) to (...)."""
        return vq.nearest(z.to(self.codebook.dtype), self.codebook)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of indices: (...) to (..., Z)."""
        return nn.functional.embedding(indices, self.codebook)

    def number(self, code: Tensor) -> Tensor:
        """The index of codes themselves: (..., Z) to (...)."""
        return self.indices(code)


class MovingQuantizer(VectorQuantizer):
    """A codebook of buffers that follow the vectors: `absorb` moves each code to the mean of those it stood
    for, and redraws a code whose share is below `restart_below` of a fair one near codes that are used.

    `weight` is the usage that the codes are computed with: a code that is redrawn gets a fair share of it, as
    if it had been used, and so has time to be. The averages begin at 0, so the first `absorb` puts each code
    that is used on the mean of its vectors, and redraws the others at once.

    Source: van den Oord et al. 2017, arXiv:1711.00937, appendix A.1. Deviation: no Laplace smoothing of the
    shares, as a code that was never used stays where it is.
    """

    weight: Tensor
    total: Tensor
    square: Tensor

    def __init__(self, codes: int, dim: int, decay: float = WINDOW, restart_below: float = 0.0) -> None:
        super().__init__(codes, dim, decay)
        self.restart_below = restart_below
        start = self.codebook.detach()
        del self.codebook
        self.register_buffer("codebook", start)
        self.register_buffer("weight", torch.zeros(codes))
        self.register_buffer("total", torch.zeros(codes, dim))
        self.register_buffer("square", torch.zeros(codes))

    def statistics(self, z: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Shares, sums and squared lengths, code by code."""
        flat, index = z.detach().flatten(0, -2), indices.flatten()
        more = {"total": flat, "square": flat.square().sum(-1)}
        return super().statistics(z, indices) | {
            name: vq.per_code(values, index, self.codes) for name, values in more.items()
        }

    @torch.no_grad()
    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Move the codes after a batch; noise for those redrawn comes from torch's global generator."""
        super().absorb(statistics)
        self.follow("weight", statistics["usage"])
        self.follow("total", statistics["total"])
        self.follow("square", statistics["square"])
        is_known = (self.weight > NEVER)[:, None]
        self.codebook.copy_(torch.where(is_known, vq.code(self.total, self.weight), self.codebook))
        if self.restart_below:
            self._restart()

    def _restart(self) -> None:
        """Redraw the codes that are hardly used; each then weighs as much as a fair share."""
        fair, ends = self.weight.mean(), self.weight.cumsum(0)
        is_dead = self.weight < self.restart_below * fair
        place = torch.rand(self.codes, device=ends.device) * ends[-1]
        chosen = torch.searchsorted(ends, place, right=True).clamp(max=self.codes - 1)
        variance = vq.variance(self.square, self.weight, self.codebook)[chosen]
        fresh = vq.redrawn(self.codebook[chosen], variance, torch.randn_like(self.codebook))
        square = fresh.square().sum(-1) + self.dim * variance
        self.codebook.copy_(torch.where(is_dead[:, None], fresh, self.codebook))
        self.weight.copy_(torch.where(is_dead, fair, self.weight))
        self.total.copy_(torch.where(is_dead[:, None], fair * fresh, self.total))
        self.square.copy_(torch.where(is_dead, fair * square, self.square))


class FiniteScalarQuantizer(Quantizer):
    """Dimension z of a vector is rounded to one of `levels[z]` values from -1 to 1: nothing to learn, and no
    code that can die.

    Source: Mentzer et al. 2023, arXiv:2309.15505; see `maths.quantization.bounded` for a deviation.
    """

    levels: Tensor
    places: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__(math.prod(levels), len(levels))
        self.register_buffer("levels", torch.tensor(levels))
        before = [math.prod(levels[:place]) for place in range(len(levels))]
        self.register_buffer("places", torch.tensor(before))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The index of each vector's code, (...), and the code with the gradient of the vector, (..., Z)."""
        steps = vq.bounded(z, self.levels)
        digits = steps.round()
        return vq.index_of(digits.long(), self.places), self._code(vq.straight_through(steps, digits))

    def indices(self, z: Tensor) -> Tensor:
        """The index of each vector's code: (..., Z) to (...)."""
        return vq.index_of(vq.bounded(z, self.levels).round().long(), self.places)

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of indices: (...) to (..., Z), from -1 to 1."""
        return self._code(vq.digits_of(indices, self.places, self.levels).float())

    def number(self, code: Tensor) -> Tensor:
        """The index of codes themselves, also after rounding to bfloat16: (..., Z) to (...)."""
        return vq.index_of(((code.float() + 1) * (self.levels - 1) / 2).round().long(), self.places)

    def _code(self, digits: Tensor) -> Tensor:
        """Levels from 0 on, as values from -1 to 1."""
        return 2 * digits / (self.levels - 1) - 1
