"""From logits to the next token, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from triptych.errors import BundleError
from triptych.infer.request import GenerationRequest

Array = np.ndarray


class History:
    """A text so far, as penalties look at it: which tokens it holds, and how often each was made."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self.seen = set(prompt)
        self.made: Counter[int] = Counter()

    def add(self, token: int) -> None:
        """Take in a token that was made."""
        self.seen.add(token)
        self.made[token] += 1


def choose(logits: Array, request: GenerationRequest, uniform: float, history: History | None = None) -> int:
    """The token that the uniform number in [0, 1) stands for; `temperature` 0 takes the likeliest, the first
    of equals.

    Tokens keep their order, each takes a stretch of [0, 1) as long as its probability, and the token is the
    one on whose stretch `uniform` falls (inversion). `top_k`, then `top_p`, then `min_p` drop tokens first;
    equal tokens go by number.

    Raises: BundleError when the logits hold NaN or infinity.
    """
    if history is not None or request.logit_bias:
        logits = adjusted(logits, request, history)
    best = int(logits.argmax())  # a NaN, if there is one
    if not np.isfinite(logits[best]):
        raise BundleError("they hold NaN or infinity", where="logits", remedy="export the model again")
    if request.temperature == 0:
        return best
    below = logits.astype(np.float64) - float(logits[best])
    with np.errstate(over="ignore"):  # a temperature next to 0 puts all but the likeliest at minus infinity
        probabilities = softmax(below / request.temperature)
    if 0 < request.top_k < len(logits) or request.top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        count = request.top_k or len(order)
        before = np.cumsum(probabilities[order[:count]] / probabilities[order[:count]].sum())
        count = min(count, 1 + int(np.searchsorted(before, request.top_p))) if request.top_p < 1 else count
        probabilities[order[count:]] = 0.0
    if request.min_p > 0:
        probabilities[is_improbable(probabilities, request.min_p)] = 0.0
    ends = probabilities.cumsum()
    return int(ends.searchsorted(uniform * ends[-1], side="right"))


def adjusted(logits: Array, request: GenerationRequest, history: History | None) -> Array:
    """The logits after penalties and biases, float64."""
    x = logits.astype(np.float64)
    if history is not None and request.repetition_penalty != 1:
        seen = sorted(history.seen)
        x[seen] = repetition(x[seen], request.repetition_penalty)
    if history is not None and history.made:
        made, counts = list(history.made), np.array(list(history.made.values()))
        x[made] = frequency(x[made], counts, request.frequency_penalty)
        x[made] = presence(x[made], request.presence_penalty)
    for token, bias in request.logit_bias.items():
        x[token] += bias
    return x


def repetition(logits: Array, penalty: float) -> Array:
    """Logits of tokens that the text holds, made less likely by a `penalty` above 1.

    Source: Keskar et al. 2019, arXiv:1909.05858, section 4.1. Deviation: negative logits are multiplied, as
    in `transformers`, because dividing them would make their tokens likelier.
    """
    penalized: Array = np.where(logits > 0, logits / penalty, logits * penalty)
    return penalized


def frequency(logits: Array, counts: Array, penalty: float) -> Array:
    """Logits of tokens made `counts` times, in nats. Source: OpenAI, API reference, frequency_penalty."""
    penalized: Array = logits - penalty * counts
    return penalized


def presence(logits: Array, penalty: float) -> Array:
    """Logits of tokens made at least once, in nats. Source: OpenAI, API reference, presence_penalty."""
    penalized: Array = logits - penalty
    return penalized


def is_improbable(probabilities: Array, min_p: float) -> Array:
    """Which tokens min-p drops. Source: Nguyen et al. 2024, arXiv:2407.01082, section 3."""
    dropped: Array = probabilities < min_p * probabilities.max()
    return dropped


def log_probabilities(logits: Array) -> Array:
    """Log-probabilities of all tokens, (..., V), in nats, under the model itself (temperature 1, nothing
    dropped).
    """
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def likeliest(log_probabilities: Array, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` likeliest tokens with their log-probabilities, likeliest first; equal ones by number."""
    order = np.argsort(-log_probabilities, kind="stable")[:count]
    return tuple((int(token), float(log_probabilities[token])) for token in order)


def softmax(logits: Array) -> Array:
    """Probabilities in proportion to exp(logits)."""
    weights = np.exp(logits - logits.max())
    probabilities: Array = weights / weights.sum()
    return probabilities
