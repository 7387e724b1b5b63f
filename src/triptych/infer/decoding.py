"""Continuous batching: sequences join and leave between token steps.

A new prompt is read alone; then all sequences at hand take each step together, one token each. A sequence
gets exactly the tokens it would get alone: its noise is its own, its cache row is its own, and steps run only
in batch sizes at which a row's bytes do not depend on its neighbours.

The cache holds `block_size` positions. A prompt longer than that keeps its last `block_size` tokens. When a
row is full, its oldest half is forgotten: the last `block_size // 2` tokens are read again, alone, and it
goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from triptych.bundle import noise
from triptych.infer.backend import TokenDecoder
from triptych.infer.choosing import choose, log_probability
from triptych.infer.generation import FinishReason, GenerationRequest, is_whole, require
from triptych.infer.text import GrowingText, Tokenizer

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """A sequence's next token: its text may be empty while it is held back.

    The last one has a `finish_reason`.
    """

    id: int
    token_id: int
    text: str
    logprob: float
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class Sequence:
    """A request on its way."""

    id: int
    request: GenerationRequest
    tokens: list[int]
    text: GrowingText
    noise: Generator
    cached: int = 0
    made: int = 0
    finish_reason: FinishReason | None = field(default=None)


class DecodeLoop:
    """Up to `slots` sequences at once; more wait their turn, in order. One of `end_tokens` ends its sequence.

    Not thread-safe: one thread drives it.
    """

    def __init__(
        self,
        decoder: TokenDecoder,
        tokenizer: Tokenizer,
        block_size: int,
        end_tokens: Collection[int] = (),
    ) -> None:
        self._end_tokens = frozenset(end_tokens)
        self._decoder, self._tokenizer, self._block_size = decoder, tokenizer, block_size
        self._active: list[Sequence] = []  # sequence number i has cache row i
        self._waiting: deque[Sequence] = deque()
        self._added = 0

    def __len__(self) -> int:
        """How many sequences are active or waiting."""
        return len(self._active) + len(self._waiting)

    def add(self, request: GenerationRequest) -> int:
        """Take a request; returns the id its events carry. Raises `InputError` when it cannot be met."""
        tokens = prompt_tokens(self._tokenizer, request)
        text = GrowingText(self._tokenizer, request.stop)
        generator = noise.stream(request.seed, request.index, noise.TOKEN)
        self._added += 1
        self._waiting.append(Sequence(self._added, request, tokens[-self._block_size :], text, generator))
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

        Nothing when there is none.
        """
        events = [self._take(sequence, logits) for sequence, logits in self._logits()]
        for row in reversed(range(len(self._active))):
            if self._active[row].finish_reason is not None:
                self._leave(row)
        return events

    def _logits(self) -> Iterator[tuple[Sequence, Array]]:
        """The next token's logits for each active sequence.

        Alone where it must be read anew, else all at once.
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
        while self._waiting and len(self._active) < self._decoder.slots:
            anew.add(len(self._active))
            self._active.append(self._waiting.popleft())
        for row, sequence in enumerate(self._active):
            if row in anew:
                sequence.cached = len(sequence.tokens)
                yield sequence, self._decoder.prefill(row, sequence.tokens)
            else:
                sequence.cached += 1
                yield sequence, logits[row]

    def _take(self, sequence: Sequence, logits: Array) -> TokenEvent:
        """Choose the sequence's next token."""
        token = choose(logits, sequence.request, sequence.noise.random())
        sequence.tokens.append(token)
        sequence.made += 1
        is_end = token in self._end_tokens
        text = "" if is_end else sequence.text.push(token)
        if not sequence.text.is_stopped and (is_end or sequence.made == sequence.request.max_tokens):
            text += sequence.text.finish()
            sequence.finish_reason = "stop" if is_end else "length"
        if sequence.text.is_stopped:
            sequence.finish_reason = "stop"
        return TokenEvent(sequence.id, token, text, log_probability(logits, token), sequence.finish_reason)

    def _leave(self, row: int) -> None:
        """Free a row; the last row moves into it, so that active rows stay together."""
        last = len(self._active) - 1
        if row != last:
            self._decoder.move(last, row)
            self._active[row] = self._active[last]
        self._active.pop()


def prompt_tokens(tokenizer: Tokenizer, request: GenerationRequest) -> list[int]:
    """The token ids of a request's prompt; an empty prompt is the start token. Raises `InputError`."""
    request.check()
    if isinstance(request.prompt, str):
        return tokenizer.encode(request.prompt) or [tokenizer.start_token]
    valid = f"token ids from 0 to {tokenizer.vocab_size - 1}"
    for token in request.prompt:
        require("prompt", token, is_whole(token) and 0 <= token < tokenizer.vocab_size, valid)
    return list(request.prompt) or [tokenizer.start_token]
