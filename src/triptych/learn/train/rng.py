"""Every random state a run depends on, as tensors and JSON; and how to borrow randomness without a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

VALIDATION_SEED = 20_140_501


def seed_all(seed: int) -> None:
    """Seed torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def capture() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All global states: torch's (and that of the GPU in use) as tensors, numpy's and Python's as JSON."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, words, following = random.getstate()
    facts = {
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
        "python": [version, list(words), following],
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        tensors["mps"] = torch.mps.get_rng_state()
    return tensors, facts


def restore(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Go back to a captured state."""
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    if "mps" in tensors and torch.backends.mps.is_available():
        torch.mps.set_rng_state(tensors["mps"])
    kind, keys, position, has_gauss, gauss = facts["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))
    version, words, following = facts["python"]
    random.setstate((version, tuple(words), following))


@contextmanager
def borrowed(seed: int = VALIDATION_SEED) -> Iterator[None]:
    """Inside, all generators are seeded with `seed`; afterwards they stand where they stood before."""
    before = capture()
    seed_all(seed)
    try:
        yield
    finally:
        restore(*before)
