"""Means that say how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def mean_and_error(name: str, values: Sequence[Tensor]) -> dict[str, float]:
    """The mean over examples and its standard error, as `name` and `name_standard_error`.

    Args:
        values: one number per example, in as many pieces as there were batches.

    >>> mean_and_error("nats", [torch.tensor([1.0, 2.0]), torch.tensor([3.0])])["nats"]
    2.0
    """
    numbers = torch.cat([value.double() for value in values])
    error = numbers.std().item() / math.sqrt(len(numbers)) if len(numbers) > 1 else math.inf
    return {name: numbers.mean().item(), f"{name}_standard_error": error}
