"""A validation: the terms over the whole split, and what they say about the run."""

from __future__ import annotations

import math

import torch

from triptych.errors import ConfigError, nearest
from triptych.learn.data.split import Split
from triptych.learn.models.base import GenerativeModel, Terms
from triptych.learn.train.settings import TrainSettings
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


def check_metric(metric: str, outcome: dict[str, float]) -> None:
    """Raise `ConfigError` unless a validation's outcome has a number of this name."""
    if metric not in outcome:
        raise ConfigError(
            f"got {metric!r}", where="train.metric", valid=", ".join(outcome), remedy=nearest(metric, outcome)
        )


def judge(counters: Counters, outcome: dict[str, float], metric: str, settings: TrainSettings) -> None:
    """Note whether this validation is the best so far; what is not a number never is."""
    value, best = outcome[metric], counters.best
    gain = math.inf if best is None else best - value if settings.metric_mode == "min" else value - best
    counters.last_validation = outcome
    if math.isfinite(value) and gain > settings.min_delta:
        counters.best, counters.best_step, counters.stale = value, counters.step, 0
        counters.best_validation = outcome
    else:
        counters.stale += 1
