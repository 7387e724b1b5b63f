"""The text side of a bundle: prompts gone on from, one by one or many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, Unpack, overload

import numpy as np

from triptych.bundle.manifest import TOKENIZER, TextSampler
from triptych.errors import InputError
from triptych.infer.decoding import PREFIX_BYTES, DecodeLoop, prompt_tokens
from triptych.infer.generation import Generation, GenerationStream, as_request, best, check_choices
from triptych.infer.graph_runner import GraphRunner
from triptych.infer.request import GenerationRequest, GenerationSettings, is_whole, require
from triptych.infer.text import Tokenizer

Array = np.ndarray

SLOTS, MAX_SLOTS = 16, 65_536  # sequences decoded at once


class TextGenerator(GraphRunner):
    """Goes on from prompts with a bundle of a text model; `InputError` for any other."""

    def open(self) -> None:
        """Get every graph and the tokenizer ready, so that no first call is slow.

        Raises `BundleRefused` if one cannot be opened.
        """
        if isinstance(self.manifest.sampler, TextSampler):
            _ = self.tokenizer
        super().open()

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        n: None = None,
        best_of: int | None = None,
        stream: Literal[False] = False,
        **settings: Unpack[GenerationSettings],
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        n: int,
        best_of: int | None = None,
        stream: Literal[False] = False,
        **settings: Unpack[GenerationSettings],
    ) -> list[Generation]: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        n: None = None,
        best_of: None = None,
        stream: Literal[True],
        **settings: Unpack[GenerationSettings],
    ) -> GenerationStream: ...

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        n: int | None = None,
        best_of: int | None = None,
        stream: bool = False,
        **settings: Unpack[GenerationSettings],
    ) -> Generation | list[Generation] | GenerationStream:
        """Go on from `prompt`, text or token ids; `GenerationRequest` has the other settings.

        Args:
            n: how many texts to return, as a list: choice i is that of (seed, index + i). One text, and no
                list, if it is not given.
            best_of: how many to make, of which those with the highest log-probability per token are returned.
            stream: give pieces of text as they are made; together they are the text.

        Raises: InputError, also for a model that is not a text model.
        """
        request = as_request(prompt, settings)
        length = len(prompt_tokens(self.tokenizer, request))
        returned, made = check_choices(n, best_of, stream)
        if stream:
            loop = self.decode_loop(slots=1, prefix_bytes=0)
            return GenerationStream(loop, request, Generation.of(request, length))
        choices = best(self.decode_loop(min(SLOTS, made)), request, length, returned, made)
        return choices[0] if n is None else choices

    def decode_loop(self, slots: int = SLOTS, prefix_bytes: int = PREFIX_BYTES) -> DecodeLoop:
        """A new loop that decodes up to `slots` sequences at once, and keeps prompts it has read in
        `prefix_bytes` of memory.

        Raises `InputError`, also for a model without text.
        """
        sampler, tokenizer = self.text_sampler, self.tokenizer
        require(
            "slots", slots, is_whole(slots) and 1 <= slots <= MAX_SLOTS, f"an integer from 1 to {MAX_SLOTS}"
        )
        require("prefix_bytes", prefix_bytes, is_whole(prefix_bytes) and prefix_bytes >= 0, "0 or more")
        ends, decoder = sampler.end_tokens, self.backend.decoder(self.token_graph, slots)
        return DecodeLoop(decoder, tokenizer, sampler.block_size, self._score, ends, prefix_bytes)

    def _score(self, tokens: Sequence[int]) -> Array:
        """The logits after each of `tokens`, (T, V)."""
        logits: Array = self.run(self.text_sampler.score_graph, {"tokens": [list(tokens)]})["logits"][0]
        return logits

    @property
    def text_sampler(self) -> TextSampler:
        """How this model draws text. Raises `InputError` for a model without text."""
        if not isinstance(self.manifest.sampler, TextSampler):
            raise InputError("does not generate text", where=self.manifest.name, remedy="use sample")
        return self.manifest.sampler

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer. Raises `InputError` for a model without text."""
        vocab_size, start = self.text_sampler.vocab_size, self.text_sampler.start_token
        assert self._tokenizer_json is not None  # the reader refuses a text bundle without one
        return Tokenizer(
            self._tokenizer_json, vocab_size, where=str(self._folder / TOKENIZER), start_token=start
        )

    def _sample_tokens(self, seeds: Sequence[int], indices: Sequence[int]) -> Array:
        """Rows of token ids as long as a sample is: the start token, and what is drawn after it."""
        spec, sampler = self.manifest.sample, self.text_sampler
        length = math.prod(map(int, spec.shape))
        decoder = self.backend.decoder(self.token_graph, min(SLOTS, len(seeds)))
        loop = DecodeLoop(decoder, self.tokenizer, sampler.block_size, self._score)  # goes on after an end
        made: dict[int, list[int]] = {}
        for seed, index in zip(seeds, indices, strict=True):
            request = GenerationRequest(
                prompt=(sampler.start_token,), max_tokens=length, seed=seed, index=index
            )
            made[loop.add(request)] = [sampler.start_token]
        while len(loop):
            for event in loop.step():
                if event.error is not None:
                    raise event.error
                made[event.id].append(event.token_id)
        rows = [row[:length] for row in made.values()]
        return np.array(rows, dtype=spec.dtype).reshape(len(rows), *map(int, spec.shape))
