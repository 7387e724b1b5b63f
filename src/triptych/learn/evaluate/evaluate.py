"""One entry point for every family."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from triptych.learn.data.split import Split
from triptych.learn.evaluate.text import measured
from triptych.learn.models.base import Batch, GenerativeModel


def evaluate(
    model: GenerativeModel,
    split: Split,
    *,
    tokenizer: str | None = None,
    batch_size: int = 250,
    seed: int = 0,
) -> dict[str, float]:
    """The model's figures over the whole of `split`; the model and torch's global generator are left as they
    were.

    Args:
        tokenizer: the JSON of the tokenizer of a text split; with it the figures include bits per byte.
        batch_size: examples at a time; it does not change what is measured.
        seed: of the noise that the figures draw.
    """
    batches: Iterable[Batch] = (batch for batch, _ in split.whole(batch_size))
    if tokenizer is not None:
        batches = measured(batches, tokenizer)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return model.figures(batches)
    finally:
        model.train(training)
