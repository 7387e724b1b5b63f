"""From logits to the next token, in float64."""

from __future__ import annotations

import numpy as np

from triptych.infer.generation import GenerationRequest

Array = np.ndarray


def choose(logits: Array, request: GenerationRequest, uniform: float) -> int:
    """The token that the uniform number in [0, 1) stands for; `temperature` 0 takes the likeliest, the first
    of equals.

    Tokens keep their order, each takes a stretch of [0, 1) as long as its probability, and the token is the
    one on whose stretch `uniform` falls (inversion). `top_k` and then `top_p` drop tokens first; equal tokens
    go by number.
    """
    if request.temperature == 0:
        return int(np.argmax(logits))
    probabilities = softmax(logits.astype(np.float64) / request.temperature)
    if 0 < request.top_k < len(logits) or request.top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        count = request.top_k or len(order)
        before = np.cumsum(probabilities[order[:count]] / probabilities[order[:count]].sum())
        count = min(count, 1 + int(np.searchsorted(before, request.top_p))) if request.top_p < 1 else count
        probabilities[order[count:]] = 0.0
    ends = np.cumsum(probabilities)
    return int(np.searchsorted(ends, uniform * ends[-1], side="right"))


def log_probability(logits: Array, token: int) -> float:
    """The log-probability of a token, in nats, under the model itself (temperature 1, nothing dropped)."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


def softmax(logits: Array) -> Array:
    """Probabilities in proportion to exp(logits)."""
    weights = np.exp(logits - logits.max())
    probabilities: Array = weights / weights.sum()
    return probabilities
