"""A validation: the terms over the whole split, and what they say about the run."""

from __future__ import annotations

import math

import torch

from triptych.errors import ConfigError, nearest
from triptych.learn.data.split import Split
from triptych.learn.models.base import GenerativeModel, Terms
from triptych.learn.train.state import Counters
from triptych.learn.train.steps import Steps

BATCH_SIZE = 500


def validate(model: GenerativeModel, split: Split, steps: Steps) -> dict[str, float]:
    """The mean of each validation term over `split`."""
    parts = []
    for batch, weight in split.whole(BATCH_SIZE):
        with torch.no_grad(), steps.autocast():
            parts.append((model.validate(steps.to_device(batch)), weight))
    return mean_terms(parts)


def mean_terms(parts: list[tuple[Terms, int]]) -> dict[str, float]:
    """The weighted mean of each named term."""
    weight = sum(w for _, w in parts)
    return {
        name: float(torch.stack([terms.named[name].cpu().double() * w for terms, w in parts]).sum() / weight)
        for name in parts[0][0].named
    }


def check_metric(metric: str, terms: dict[str, float]) -> None:
    """Raise `ConfigError` unless the model has a validation term of this name."""
    if metric not in terms:
        raise ConfigError(
            f"got {metric!r}", where="train.metric", valid=", ".join(terms), remedy=nearest(metric, terms)
        )


def judge(counters: Counters, terms: dict[str, float], metric: str, min_delta: float) -> None:
    """Note whether this validation is the best so far; what is not a number never is."""
    value = terms[metric]
    counters.last_validation = terms
    if math.isfinite(value) and (counters.best is None or value < counters.best - min_delta):
        counters.best, counters.best_step, counters.stale = value, counters.step, 0
        counters.best_validation = terms
    else:
        counters.stale += 1
