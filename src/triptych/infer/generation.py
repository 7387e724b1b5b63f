"""What a caller asks of a text model, and what it gets back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from triptych.bundle.noise import MAX_SEED, check_seed
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.infer.decoding import DecodeLoop, TokenEvent

T = TypeVar("T")
FinishReason = Literal["length", "stop"]
MAX_STOPS = 16


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prompt, and how to go on from it.

    `temperature` 0 takes the likeliest token; `top_k` keeps that many tokens (0: all); `top_p` keeps the
    likeliest tokens that together have that probability. The noise of choice number `index` is that of
    (`seed`, `index`).
    """

    prompt: str | tuple[int, ...]
    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    index: int = 0

    def check(self) -> None:
        """Raise `InputError` for the first setting that is out of its range."""
        require(
            "max_tokens",
            self.max_tokens,
            is_whole(self.max_tokens) and self.max_tokens >= 1,
            "an integer from 1",
        )
        require(
            "temperature", self.temperature, is_within(self.temperature, 0.0, 100.0), "a number from 0 to 100"
        )
        require(
            "top_k", self.top_k, is_whole(self.top_k) and self.top_k >= 0, "an integer from 0 (all tokens)"
        )
        require(
            "top_p",
            self.top_p,
            is_within(self.top_p, 0.0, 1.0) and self.top_p > 0,
            "a number above 0, up to 1",
        )
        stops = isinstance(self.stop, tuple) and all(isinstance(text, str) and text for text in self.stop)
        require(
            "stop", self.stop, stops and len(self.stop) <= MAX_STOPS, f"up to {MAX_STOPS} strings, none empty"
        )
        is_index = is_whole(self.index) and 0 <= self.index <= MAX_SEED
        require("index", self.index, is_index, f"an integer from 0 to {MAX_SEED}")
        check_seed(self.seed)


@dataclass(slots=True)
class Generation:
    """A finished text: without the prompt, and without the stop string that ended it."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    logprobs: list[float] | None = None
    prompt_tokens: int = 0

    def add(self, event: TokenEvent) -> None:
        """Take in the next token."""
        self.text += event.text
        self.token_ids.append(event.token_id)
        self.finish_reason = event.finish_reason
        if self.logprobs is not None:
            self.logprobs.append(event.logprob)


class GenerationStream:
    """The pieces of a text as they are made; `generation` holds all that came so far."""

    def __init__(self, loop: DecodeLoop, request: GenerationRequest, generation: Generation) -> None:
        self.generation = generation
        self._loop, self._id = loop, loop.add(request)

    def __iter__(self) -> Iterator[str]:
        while self.generation.finish_reason is None and len(self._loop):
            for event in self._loop.step():
                self.generation.add(event)
                if event.text:
                    yield event.text

    def close(self) -> None:
        """Stop early; `generation` keeps what came so far, and no more pieces come."""
        self._loop.cancel(self._id)


def as_tuple(name: str, values: Iterable[T], valid: str) -> tuple[T, ...]:
    """The values as a tuple; `InputError` when there is nothing to go through."""
    require(name, values, isinstance(values, Iterable), valid)
    return tuple(values)


def require(name: str, value: object, holds: bool, valid: str) -> None:
    """Raise `InputError` unless the setting `name` holds."""
    if not holds:
        raise InputError(f"got {value!r}", where=name, valid=valid)


def is_whole(value: object) -> bool:
    """Whether a value is an integer, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_within(value: object, low: float, high: float) -> bool:
    """Whether a value is a finite number from low to high."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
