"""Prompts that were read before: their part of the cache is copied, not computed again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from triptych.infer.backend import TokenDecoder

Array = np.ndarray


class Prefixes:
    """Reads prompts into a decoder's rows, and keeps what reading the latest ones gave, up to `budget_bytes`.

    A prompt is found again only whole: the same tokens give the same bytes, because they are the same bytes.
    """

    def __init__(self, decoder: TokenDecoder, budget_bytes: int) -> None:
        self.budget_bytes, self.held_bytes = budget_bytes, 0
        self._decoder = decoder
        self._held: OrderedDict[tuple[int, ...], tuple[Array, list[Array]]] = OrderedDict()

    def read(self, slot: int, tokens: Sequence[int]) -> Array:
        """Put a prompt into row `slot`; returns the next token's logits, (V,)."""
        prompt = tuple(tokens)
        if prompt in self._held:
            self._held.move_to_end(prompt)
            logits, past = self._held[prompt]
            self._decoder.restore(slot, past)
            return logits
        logits = self._decoder.prefill(slot, tokens).copy()
        self._keep(prompt, logits, slot)
        return logits

    def _keep(self, prompt: tuple[int, ...], logits: Array, slot: int) -> None:
        """Keep a prompt that was just read, in place of those not wanted for longest."""
        size_bytes = logits.nbytes + self._decoder.past_bytes(len(prompt))
        if size_bytes > self.budget_bytes:
            return
        while self.held_bytes + size_bytes > self.budget_bytes:
            _, (old, past) = self._held.popitem(last=False)
            self.held_bytes -= old.nbytes + sum(part.nbytes for part in past)
        self._held[prompt] = logits, self._decoder.save(slot, len(prompt))
        self.held_bytes += size_bytes
