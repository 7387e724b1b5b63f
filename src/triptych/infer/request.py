"""What a caller asks of a text model: a prompt, and how to go on from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict, TypeVar

from triptych.bundle.continuation import Continuation
from triptych.bundle.noise import MAX_SEED, check_seed
from triptych.errors import InputError

T = TypeVar("T")
MAX_STOPS, MAX_BIASES, MAX_TOP_LOGPROBS, MAX_CHOICES = 16, 1024, 20, 1024


class GenerationRequest(Continuation, frozen=True):
    """A prompt, and how to go on from it; `Continuation` has the fields and their defaults.

    Logits are changed in this order: `repetition_penalty` (1: none) on every token of the text, prompt
    included; `frequency_penalty` and `presence_penalty` (0: none) on the tokens made so far; `logit_bias`, in
    nats by token id. Then `temperature` 0 takes the likeliest token, and any other divides the logits; then
    `top_k` keeps that many tokens (0: all), `top_p` the likeliest tokens that together have that probability,
    `min_p` those at least that probable beside the likeliest. `infer.choosing` has the formulas.

    `logprobs` keeps each token's log-probability under the model itself, in nats, and `top_logprobs` those of
    that many likeliest tokens beside it. `echo` puts the prompt in front; then `max_tokens` may be 0. The
    noise of choice number `index` is that of (`seed`, `index`).
    """

    def check(self) -> None:
        """Raise `InputError` for the first setting that is out of its range."""
        least = 0 if self.echo is True and self.prompt else 1
        valid = f"an integer from {least}" + ("" if least == 0 else ", or 0 to echo a prompt alone")
        require("max_tokens", self.max_tokens, is_whole(self.max_tokens) and self.max_tokens >= least, valid)
        self._check_number("temperature", 0.0, 100.0)
        require(
            "top_k", self.top_k, is_whole(self.top_k) and self.top_k >= 0, "an integer from 0 (all tokens)"
        )
        require("top_p", self.top_p, is_within(self.top_p, 0, 1) and self.top_p > 0, "above 0, up to 1")
        self._check_number("min_p", 0.0, 1.0)
        self._check_number("repetition_penalty", 0.01, 100.0)
        self._check_number("frequency_penalty", -2.0, 2.0)
        self._check_number("presence_penalty", -2.0, 2.0)
        biases = isinstance(self.logit_bias, Mapping) and len(self.logit_bias) <= MAX_BIASES
        fits = biases and all(is_within(bias, -100, 100) for bias in self.logit_bias.values())
        require("logit_bias", self.logit_bias, fits, f"up to {MAX_BIASES} token ids, each with -100 to 100")
        stops = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        require(
            "stop", self.stop, stops and len(self.stop) <= MAX_STOPS, f"up to {MAX_STOPS} strings, none empty"
        )
        for name in ("logprobs", "echo"):
            require(name, getattr(self, name), isinstance(getattr(self, name), bool), "true or false")
        top, most = self.top_logprobs, MAX_TOP_LOGPROBS if self.logprobs else 0
        valid = f"an integer from 0 to {MAX_TOP_LOGPROBS}" if self.logprobs else "0 without logprobs"
        require("top_logprobs", top, is_whole(top) and 0 <= top <= most, valid)
        is_index = is_whole(self.index) and 0 <= self.index <= MAX_SEED
        require("index", self.index, is_index, f"an integer from 0 to {MAX_SEED}")
        check_seed(self.seed)

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        require(name, value, is_within(value, low, high), f"a number from {low:g} to {high:g}")

    @property
    def is_penalized(self) -> bool:
        """Whether the tokens so far change the next one's logits."""
        return self.repetition_penalty != 1 or bool(self.frequency_penalty) or bool(self.presence_penalty)


class GenerationSettings(TypedDict, total=False):
    """Every setting of `GenerationRequest` but its prompt, as `Engine.generate` takes them."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    logit_bias: Mapping[int, float]
    stop: str | Iterable[str]
    logprobs: bool
    top_logprobs: int
    echo: bool
    seed: int
    index: int


def as_tuple(name: str, values: Iterable[T], valid: str) -> tuple[T, ...]:
    """The values as a tuple; `InputError` when there is nothing to go through, and for bytes, whose values
    are numbers by accident."""
    require(name, values, not isinstance(values, bytes | bytearray | memoryview), valid)
    try:
        return tuple(values)
    except TypeError as error:
        raise InputError(f"got {values!r}", where=name, valid=valid) from error


def require(name: str, value: object, holds: bool, valid: str) -> None:
    """Raise `InputError` unless the setting `name` holds."""
    if not holds:
        raise InputError(f"got {value!r}", where=name, valid=valid)


def is_whole(value: object) -> bool:
    """Whether a value is an integer, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_within(value: object, low: float, high: float) -> bool:
    """Whether a value is a number from low to high, both finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
