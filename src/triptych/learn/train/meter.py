"""Means of what a player paid, kept on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from triptych.learn.train.world import World


class Meter:
    """Means of one player's terms since the last reset, summed on the device: no number leaves it in
    between.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.names: tuple[str, ...] = ()
        self.updates = 0
        self.sums: Tensor | None = None

    def add(self, names: tuple[str, ...], values: Tensor) -> None:
        """Count one update: (1 + number of terms + 1,) values, the total, the terms, the gradient norm."""
        self.names = names
        self.sums = values.clone() if self.sums is None else self.sums.add_(values)
        self.updates += 1

    def share(self, world: World) -> None:
        """Take the average over all processes; once they agree, this changes nothing."""
        if self.sums is not None:
            (self.sums,) = world.average([self.sums])

    def finite(self) -> bool:
        """Whether every term and every gradient norm so far was a number."""
        return self.sums is None or bool(self.sums.isfinite().all())

    def broken(self) -> list[str]:
        """Names of the terms that are not finite, the total first."""
        if self.sums is None:
            return []
        return [
            name
            for name, value in zip(("total", *self.names), self.sums[:-1].tolist(), strict=True)
            if value - value != 0
        ]

    def means(self) -> tuple[dict[str, float], float]:
        """Mean of every named term (`total` when the model names none), and of the gradient norm."""
        assert self.sums is not None
        total, *named, norm = (self.sums / self.updates).tolist()
        return dict(zip(self.names, named, strict=True)) or {"total": total}, norm


def stacked(total: Tensor, named: dict[str, Tensor]) -> Tensor:
    """The total and the terms as one float32 vector."""
    return torch.stack([total.detach(), *(value.detach() for value in named.values())]).float()
