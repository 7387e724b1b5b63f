"""Toys: mixtures of two-dimensional Gaussians whose modes are known, so that those a model found can be
counted.

Source: Srivastava et al. 2017 (VEEGAN), arXiv:1705.07761, section 4.1; Lin et al. 2018 (PacGAN),
arXiv:1712.04086, section 4.1. Deviation: scaled into [0, 1]^2, as all data here are: 0.4 stands for the
ring's radius, and 0.1 for a unit of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from triptych.errors import ConfigError
from triptych.learn.data.dataset import Dataset, renamed
from triptych.learn.data.datasets import from_arrays
from triptych.learn.data.split import generator
from triptych.learn.maths.support import high_quality, modes_hit

EXTENT = 0.4  # how far the outermost modes are from the middle, along an axis


@dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians: `centres` (M, 2) in [0, 1]^2, all of deviation `sigma`."""

    centres: Tensor
    sigma: float

    def draw(self, examples: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points (examples, 2), cut off at the border of [0, 1]^2, and the mode of each (examples,)."""
        own = generator(seed)
        modes = torch.randint(len(self.centres), (examples,), generator=own)
        noise = torch.randn(examples, 2, generator=own)
        return (self.centres[modes] + self.sigma * noise).clamp(0, 1), modes

    def figures(self, x: Tensor) -> dict[str, float]:
        """Of samples (B, 2): how many modes they hit and miss, and the share within 3 sigma of one."""
        hit = int(modes_hit(x, self.centres, self.sigma).sum())
        share = high_quality(x, self.centres, self.sigma).double().mean().item()
        return {"modes_hit": hit, "modes_missed": len(self.centres) - hit, "high_quality": share}


def ring(modes: int, sigma: float) -> Mixture:
    """`modes` centres on a circle."""
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return Mixture(0.5 + EXTENT * torch.stack([angles.cos(), angles.sin()], dim=1), sigma)


def grid(side: int, sigma: float) -> Mixture:
    """`side` x `side` centres in a square."""
    places = torch.linspace(0.5 - EXTENT, 0.5 + EXTENT, side)
    return Mixture(torch.cartesian_prod(places, places), sigma)


def mixture(section: Mapping[str, Any]) -> Mixture | None:
    """The mixture that a `[data]` section draws from, or None if it names no toy."""
    if section.get("name") == "toy_ring":
        return ring(section["modes"], section["sigma"])
    if section.get("name") == "toy_grid":
        return grid(section["side"], section["sigma"])
    return None


def toy_ring(
    *,
    modes: int = 8,
    sigma: float = 0.004,
    examples: int = 20_000,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Eight Gaussians on a ring; labels say which.

    Args:
        modes: 2 or more.
        sigma: deviation of each mode; 0.004 is the source's 0.01 at a radius of 1.
    """
    section = {"name": "toy_ring", "modes": modes, "sigma": sigma, "examples": examples}
    section |= {"validation": validation, "test": test, "seed": seed}
    return _toy(section, 2 * EXTENT * math.sin(math.pi / max(2, modes)), count=modes, key="modes")


def toy_grid(
    *,
    side: int = 5,
    sigma: float = 0.005,
    examples: int = 50_000,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Twenty-five Gaussians on a square grid; labels say which.

    Args:
        side: modes along each axis, 2 or more.
        sigma: deviation of each mode; 0.005 is the source's 0.05 at a distance of 2.
    """
    section = {"name": "toy_grid", "side": side, "sigma": sigma, "examples": examples}
    section |= {"validation": validation, "test": test, "seed": seed}
    return _toy(section, 2 * EXTENT / (max(2, side) - 1), count=side, key="side")


def _toy(section: dict[str, Any], distance: float, *, count: int, key: str) -> Dataset:
    if count < 2:
        raise ConfigError(f"got {count}", where=f"data.{key}", valid="2 or more")
    if not 0 < section["sigma"] < distance / 6:
        raise ConfigError(
            f"got {section['sigma']:g}, with which modes touch",
            where="data.sigma",
            valid=f"more than 0, less than a sixth of the distance of two modes: {distance / 6:.4g}",
        )
    drawn = mixture(section)
    assert drawn is not None
    x, modes = drawn.draw(section["examples"], section["seed"])
    shares = {key: section[key] for key in ("validation", "test", "seed")}
    source = f"{len(drawn.centres)} Gaussians of deviation {section['sigma']:g} in the unit square"
    return renamed(from_arrays(x.numpy(), modes.numpy(), **shares), section["name"], source, section)
