"""Texts as a caller gets them: whole, in pieces, or the best of several."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from triptych.errors import InputError, nearest
from triptych.infer.decoding import DecodeLoop, FinishReason, TokenEvent
from triptych.infer.request import MAX_CHOICES, GenerationRequest, as_tuple, is_whole, require


@dataclass(slots=True)
class Generation:
    """A finished text: without the prompt unless it was to be echoed, and without the stop string that ended
    it.

    `logprobs` and `top_logprobs` have an entry for each of `token_ids`, if they were asked for.
    """

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    logprobs: list[float | None] | None = None
    prompt_tokens: int = 0
    top_logprobs: list[dict[int, float]] | None = None

    def add(self, event: TokenEvent) -> None:
        """Take in the next token. Raises what the sequence failed of."""
        if event.error is not None:
            raise event.error
        self.text += event.text
        self.token_ids.append(event.token_id)
        self.finish_reason = event.finish_reason
        if self.logprobs is not None:
            self.logprobs.append(event.logprob)
        if self.top_logprobs is not None:
            self.top_logprobs.append(dict(event.top))

    @classmethod
    def of(cls, request: GenerationRequest, prompt_tokens: int) -> Generation:
        """An empty one, which keeps what the request asks for."""
        logprobs: list[float | None] | None = [] if request.logprobs else None
        top: list[dict[int, float]] | None = [] if request.top_logprobs else None
        return cls(logprobs=logprobs, prompt_tokens=prompt_tokens, top_logprobs=top)


class GenerationStream:
    """The pieces of a text as they are made; `generation` holds all that came so far."""

    def __init__(self, loop: DecodeLoop, request: GenerationRequest, generation: Generation) -> None:
        self.generation = generation
        self._loop, self._id = loop, loop.add(request)
        self._ready: deque[TokenEvent] = deque()  # of a step that gave several

    def __iter__(self) -> Iterator[str]:
        while self._ready or len(self._loop):
            if not self._ready:
                self._ready.extend(self._loop.step())
            event = self._ready.popleft()
            self.generation.add(event)
            if event.text:
                yield event.text

    def close(self) -> None:
        """Stop early; `generation` keeps what came so far, and no more pieces come."""
        self._loop.cancel(self._id)
        self._ready.clear()


def as_request(prompt: str | Sequence[int], settings: Mapping[str, Any]) -> GenerationRequest:
    """The request that a call's arguments stand for."""
    given = {name: plain(value) for name, value in settings.items()}
    if "stop" in given:
        stop = given["stop"]
        given["stop"] = (stop,) if isinstance(stop, str) else as_tuple("stop", stop, "a string, or several")
    if isinstance(bias := given.get("logit_bias"), Mapping):
        given["logit_bias"] = {plain(token): plain(nats) for token, nats in bias.items()}
    known = GenerationRequest.__struct_fields__
    for name in given:
        if name not in known:
            valid, remedy = ", ".join(known), nearest(name, known)
            raise InputError("is no setting of a text", where=name, valid=valid, remedy=remedy)
    if not isinstance(prompt, str):
        prompt = tuple(map(plain, as_tuple("prompt", prompt, "text or token ids")))
    return GenerationRequest(prompt=prompt, **given)


def plain(value: Any) -> Any:
    """A number of numpy's as Python's own; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_choices(n: int | None, best_of: int | None, stream: bool) -> tuple[int, int]:
    """How many texts to return, and how many to make. Raises `InputError` for what cannot be, or does
    nothing."""
    require(
        "n", n, n is None or (is_whole(n) and 1 <= n <= MAX_CHOICES), f"an integer from 1 to {MAX_CHOICES}"
    )
    returned = n or 1
    valid = f"an integer from n = {returned} to {MAX_CHOICES}"
    fits = best_of is None or (is_whole(best_of) and returned <= best_of <= MAX_CHOICES)
    require("best_of", best_of, fits, valid)
    if stream and (n is not None or best_of is not None):
        where = "n" if n is not None else "best_of"
        raise InputError("does not go with stream", where=where, remedy="stream one text at a time, by index")
    return returned, best_of or returned


def best(
    loop: DecodeLoop, request: GenerationRequest, length: int, returned: int, made: int
) -> list[Generation]:
    """The `returned` best of `made` texts, in the order of their indices where all are returned.

    Source: OpenAI, API reference, best_of: those with the highest log-probability per token. `length` is that
    of the prompt, in tokens.
    """
    judged = msgspec.structs.replace(request, logprobs=request.logprobs or made > returned)
    found: dict[int, Generation] = {}
    for number in range(made):
        own = msgspec.structs.replace(judged, index=request.index + number)
        found[loop.add(own)] = Generation.of(judged, length)
    while len(loop):
        for event in loop.step():
            found[event.id].add(event)
    choices = list(found.values())
    if made > returned:
        start = length if request.echo and request.prompt else 0
        choices = sorted(choices, key=lambda choice: mean_logprob(choice, start), reverse=True)[:returned]
    for choice in choices if not request.logprobs else ():
        choice.logprobs = None
    return choices


def mean_logprob(generation: Generation, start: int) -> float:
    """Log-probability per token from token `start` on, in nats."""
    found = [logprob for logprob in (generation.logprobs or ())[start:] if logprob is not None]
    return sum(found) / max(1, len(found))
