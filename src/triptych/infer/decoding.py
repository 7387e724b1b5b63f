"""Continuous batching: sequences join and leave between token steps.

A new prompt is read alone; then all sequences at hand take each step together, one token each. A sequence
gets exactly the tokens it would get alone: its noise is its own, its cache row is its own, and steps run only
in batch sizes at which a row's bytes do not depend on its neighbours. One that fails, because its prompt
cannot be read or its logits are no numbers, ends alone. Sequences join in the order they came, and none takes
a second token before every other has had one.

The cache holds `block_size` positions. A prompt longer than that keeps its last `block_size` tokens. When a
row is full, its oldest half is forgotten: the last `block_size // 2` tokens are read again, alone, and it
goes on from there. Memory is bounded: `slots` rows, the prompts kept for their next use, and the logits of
one prompt while it is scored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.random import Generator

from triptych.bundle import noise
from triptych.errors import InputError
from triptych.infer.backend import TokenDecoder
from triptych.infer.choosing import History, choose, likeliest, log_probabilities
from triptych.infer.prefixes import Prefixes
from triptych.infer.request import GenerationRequest, is_whole, require
from triptych.infer.text import GrowingText, Tokenizer

Array = np.ndarray
FinishReason = Literal["length", "stop"]
Score = Callable[[Sequence[int]], Array]

PREFIX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A sequence's next token: its text may be empty while it is held back.

    Tokens of the prompt come first where `echo` asks for them. `logprob` is None where it was not asked for,
    and of a prompt's first token, which nothing predicts; `top` are the likeliest tokens at its place. The
    last event has a `finish_reason`, or, of a sequence that failed, an `error` and no token (-1).
    """

    id: int
    token_id: int
    text: str
    logprob: float | None = None
    finish_reason: FinishReason | None = None
    top: tuple[tuple[int, float], ...] = ()
    is_prompt: bool = False
    error: Exception | None = None


@dataclass(slots=True)
class Running:
    """A request on its way: `tokens` are those that its cache row stands for."""

    id: int
    request: GenerationRequest
    tokens: list[int]
    text: GrowingText
    noise: Generator
    history: History | None
    cached: int = 0
    made: int = 0
    finish_reason: FinishReason | None = None
    has_failed: bool = False

    def fail(self, error: Exception) -> TokenEvent:
        """End it with `error`; the event that says so."""
        self.has_failed = True
        return TokenEvent(self.id, -1, "", error=error)


class DecodeLoop:
    """Up to `slots` sequences at once; more wait their turn, in order. One of `end_tokens` ends its sequence.

    Not thread-safe: one thread drives it.
    """

    def __init__(
        self,
        decoder: TokenDecoder,
        tokenizer: Tokenizer,
        block_size: int,
        score: Score,
        end_tokens: Collection[int] = (),
        prefix_bytes: int = PREFIX_BYTES,
    ) -> None:
        """`score` gives the logits after each of some tokens, (T, V); at most `prefix_bytes` keep prompts."""
        self._end_tokens = frozenset(end_tokens)
        self._decoder, self._tokenizer, self._block_size = decoder, tokenizer, block_size
        self._score, self._prefixes = score, Prefixes(decoder, prefix_bytes)
        self._active: list[Running] = []  # sequence number i has cache row i
        self._waiting: deque[Running] = deque()
        self._added = 0

    def __len__(self) -> int:
        """How many sequences are active or waiting."""
        return len(self._active) + len(self._waiting)

    @property
    def cache_bytes(self) -> int:
        """The most memory that pasts may take: of the rows, and of prompts that are kept."""
        return self._decoder.cache_bytes + self._prefixes.budget_bytes

    def add(self, request: GenerationRequest) -> int:
        """Take a request; returns the id its events carry. Raises `InputError` when it cannot be met."""
        tokens = prompt_tokens(self._tokenizer, request)
        if request.echo and request.logprobs and len(tokens) > self._block_size:
            valid = f"false, or a prompt of up to {self._block_size} tokens"
            raise InputError(f"cannot score a prompt of {len(tokens)} tokens", where="echo", valid=valid)
        text = GrowingText(self._tokenizer, request.stop, tokens if request.prompt else ())
        generator = noise.stream(request.seed, request.index, noise.TOKEN)
        history = History(tokens) if request.is_penalized else None
        self._added += 1
        kept = tokens if request.echo else tokens[-self._block_size :]
        self._waiting.append(Running(self._added, request, kept, text, generator, history))
        return self._added

    def cancel(self, id: int) -> bool:
        """Drop a sequence at once; False if it is not here (it may have finished)."""
        for sequence in self._waiting:
            if sequence.id == id:
                self._waiting.remove(sequence)
                return True
        for row, sequence in enumerate(self._active):
            if sequence.id == id:
                self._leave(row)
                return True
        return False

    def step(self) -> list[TokenEvent]:
        """One token for every active sequence, after those that wait have joined.

        Nothing when there is none. What fails for all at once is raised.
        """
        events: list[TokenEvent] = []
        for sequence, logits in self._logits(events):
            try:
                events.append(self._take(sequence, logits()))
            except Exception as error:
                events.append(sequence.fail(error))
        for row in reversed(range(len(self._active))):
            if self._active[row].finish_reason is not None or self._active[row].has_failed:
                self._leave(row)
        return events

    def _logits(self, events: list[TokenEvent]) -> Iterator[tuple[Running, Callable[[], Array]]]:
        """How to get the next token's logits for each active sequence.

        Alone where it must be read anew, else all at once. Echoes of those that join go to `events`.
        """
        anew = {row for row, sequence in enumerate(self._active) if sequence.cached == self._block_size}
        for row in anew:
            sequence = self._active[row]
            del sequence.tokens[: -max(1, self._block_size // 2)]
        running = len(self._active)
        if len(anew) < running:
            tokens = [sequence.tokens[-1] for sequence in self._active]
            lengths = [0 if row in anew else sequence.cached for row, sequence in enumerate(self._active)]
            logits = self._decoder.step(tokens, lengths)
        self._join(events)
        for row, sequence in enumerate(self._active):
            if row in anew or row >= running:
                read = self._decoder.prefill if row in anew else self._prefixes.read
                sequence.cached = len(sequence.tokens)
                yield sequence, partial(read, row, sequence.tokens)
            else:
                sequence.cached += 1
                yield sequence, partial(logits.__getitem__, row)

    def _join(self, events: list[TokenEvent]) -> None:
        """Let those that wait have the free rows; who asks for an echo alone needs none."""
        while self._waiting and len(self._active) < self._decoder.slots:
            sequence = self._waiting.popleft()
            if sequence.request.echo and sequence.request.prompt:
                try:
                    events += self._echo(sequence)
                except Exception as error:
                    events.append(sequence.fail(error))
                del sequence.tokens[: -self._block_size]
            if sequence.finish_reason is None and not sequence.has_failed:
                self._active.append(sequence)

    def _echo(self, sequence: Running) -> list[TokenEvent]:
        """The events of a sequence's prompt."""
        request, tokens = sequence.request, sequence.tokens
        logits = self._score(tokens) if request.logprobs else None
        sequence.text, events = GrowingText(self._tokenizer, ()), []
        for place, token in enumerate(tokens):
            piece = sequence.text.push(token)
            if place == len(tokens) - 1 and not request.max_tokens:
                piece += sequence.text.finish()
                sequence.finish_reason = "length"
            event = TokenEvent(sequence.id, token, piece, None, sequence.finish_reason, is_prompt=True)
            if logits is not None and place > 0:
                logprob, top = scored(logits[place - 1], token, request.top_logprobs)
                event = replace(event, logprob=logprob, top=top)
            events.append(event)
        sequence.text.go_on(request.stop)
        return events

    def _take(self, sequence: Running, logits: Array) -> TokenEvent:
        """Choose the sequence's next token."""
        request = sequence.request
        token = choose(logits, request, sequence.noise.random(), sequence.history)
        sequence.tokens.append(token)
        sequence.made += 1
        if sequence.history is not None:
            sequence.history.add(token)
        is_end = token in self._end_tokens
        text = "" if is_end else sequence.text.push(token)
        if not sequence.text.is_stopped and (is_end or sequence.made == request.max_tokens):
            text += sequence.text.finish()
            sequence.finish_reason = "stop" if is_end else "length"
        if sequence.text.is_stopped:
            sequence.finish_reason = "stop"
        if not request.logprobs:
            return TokenEvent(sequence.id, token, text, None, sequence.finish_reason)
        logprob, top = scored(logits, token, request.top_logprobs)
        return TokenEvent(sequence.id, token, text, logprob, sequence.finish_reason, top)

    def _leave(self, row: int) -> None:
        """Free a row; the last row moves into it, so that active rows stay together."""
        last = len(self._active) - 1
        if row != last:
            self._decoder.move(last, row)
            self._active[row] = self._active[last]
        self._active.pop()


def scored(logits: Array, token: int, top_logprobs: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log-probability of a token, and the likeliest ones, after logits (V,)."""
    found = log_probabilities(logits)
    return float(found[token]), likeliest(found, top_logprobs)


def prompt_tokens(tokenizer: Tokenizer, request: GenerationRequest) -> list[int]:
    """The token ids of a request's prompt; an empty prompt is the start token. Raises `InputError`."""
    request.check()
    valid = f"token ids from 0 to {tokenizer.vocab_size - 1}"
    for token in request.logit_bias:
        require("logit_bias", token, is_whole(token) and 0 <= token < tokenizer.vocab_size, valid)
    if isinstance(request.prompt, str):
        return tokenizer.encode(request.prompt) or [tokenizer.start_token]
    for token in request.prompt:
        require("prompt", token, is_whole(token) and 0 <= token < tokenizer.vocab_size, valid)
    return list(request.prompt) or [tokenizer.start_token]
