"""A loaded bundle, ready to run: what `triptych.load` gives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Unpack, overload

import numpy as np

from triptych.bundle import noise, reader
from triptych.bundle.condition import LABEL, row_labels
from triptych.bundle.manifest import (
    TOKENIZER,
    CodeSampler,
    GraphRecord,
    LatentSampler,
    Manifest,
    TextSampler,
    TokenSampler,
)
from triptych.errors import InputError, NotFoundError, nearest
from triptych.infer import codes, latents
from triptych.infer.backend import Backend
from triptych.infer.decoding import PREFIX_BYTES, DecodeLoop, prompt_tokens
from triptych.infer.generation import Generation, GenerationStream, as_request, best, check_choices
from triptych.infer.inputs import check
from triptych.infer.request import GenerationRequest, GenerationSettings
from triptych.infer.rows import pad, split
from triptych.infer.text import Tokenizer

Array = np.ndarray

SLOTS, MAX_SAMPLES, STREAM_BATCH = 16, 1_000_000, 1024
TRAVERSAL = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def rows_of(
    labels: Sequence[int] | None, indices: Sequence[int], sampler: LatentSampler | CodeSampler
) -> Sequence[int]:
    """The label of each row: as given and checked, or by default the index modulo the classes."""
    classes = sampler.classes or 1
    if labels is None:
        return [index % classes for index in indices]
    return row_labels({LABEL: list(labels)}, len(indices), classes) or ()


class Engine:
    """Runs one bundle. The same request gives the same bytes, whatever else is computed beside it.

    `run`, `run_rows` and `sample_rows` may be called from several threads at once.
    """

    def __init__(self, bundle: reader.Bundle, backend: Backend, token_graph: str | None = None) -> None:
        """`token_graph` is the one of several next-token graphs to use; the plain one by default."""
        self.manifest: Manifest = bundle.manifest
        self.backend = backend
        sampler = bundle.manifest.sampler
        self.token_graph = token_graph or sampler.graph
        self._folder, self._tokenizer_json, self._weights = bundle.folder, bundle.tokenizer, bundle.weights
        self._graphs = {graph.name: graph for graph in bundle.manifest.graphs}

    def open(self) -> None:
        """Get every graph ready, so that no first call is slow.

        Raises `BundleRefused` if one cannot be opened.
        """
        sampler = self.manifest.sampler
        unused: set[str] = set()
        if isinstance(sampler, TokenSampler):
            unused = {sampler.graph, sampler.standard_graph}
        if isinstance(sampler, TextSampler):
            _ = self.tokenizer
            unused |= {found.graph for found in sampler.precisions}
        for graph in self._graphs.keys() - (unused - {self.token_graph}):
            self.backend.open(graph)

    def graph(self, name: str) -> GraphRecord:
        """What the manifest says of a graph. Raises `NotFoundError`."""
        if name not in self._graphs:
            valid, remedy = ", ".join(self._graphs), nearest(name, self._graphs)
            raise NotFoundError(
                f"has no graph {name!r}", where=self.manifest.name, valid=valid, remedy=remedy
            )
        return self._graphs[name]

    def check(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs of a graph as arrays of the right dtype. Raises `NotFoundError`, `InputError`."""
        return check(self.graph(graph), inputs)

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run a graph: named arrays in, named arrays out. Raises `NotFoundError`, `InputError`.

        >>> engine.run("decode", {"z": z})["x"]  # doctest: +SKIP
        """
        return self.run_rows(graph, self.check(graph, inputs))

    def run_rows(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that `check` returned, in batches of its backend's `row_buckets`.

        A row's outputs depend on that row's inputs alone: rows of several requests may be stacked.
        """
        buckets = self.backend.row_buckets(self.graph(graph).name)
        if not buckets:
            return self.backend.run(graph, inputs)
        rows = len(next(iter(inputs.values())))
        parts = [
            self.backend.run(graph, {name: pad(array[held], size) for name, array in inputs.items()})
            for held, size in split(rows, buckets)
        ]
        if len(parts) == 1:
            return {name: array[:rows] for name, array in parts[0].items()}
        return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}

    def tensor(self, name: str) -> Array:
        """A tensor of the bundle, not writable. Raises `NotFoundError`."""
        extents = self._weights.extents
        if name not in extents:
            raise NotFoundError(
                f"has no tensor {name!r}", where=self.manifest.name, remedy=nearest(name, extents)
            )
        return self._weights.array(extents[name])

    def sample(
        self, n: int, *, seed: int = 0, condition: object | None = None, truncation: float | None = None
    ) -> Array:
        """`n` samples, shape (n, *sample_shape): number i is that of (`seed`, i).

        Args:
            condition: for a conditional model `{"label": 3}`, or a list of `n` labels in place of the one; by
                default each class in turn, number i being of class i modulo their number.
            truncation: latents further than this from 0 in some dimension are drawn again there: likelier
                samples, less varied ones (0.5 to 1 for a GAN).

        Raises: InputError.
        """
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= MAX_SAMPLES:
            valid = f"an integer from 1 to {MAX_SAMPLES}"
            raise InputError(f"got {n!r}", where="n", valid=valid, remedy="`sample_stream` takes any number")
        labels = row_labels(condition, int(n), self.manifest.sampler.classes)
        return self.sample_rows([seed] * int(n), range(int(n)), labels, truncation=truncation)

    def sample_stream(
        self,
        n: int,
        *,
        seed: int = 0,
        batch: int = STREAM_BATCH,
        condition: object | None = None,
        truncation: float | None = None,
    ) -> Iterator[Array]:
        """What `sample` gives, `batch` rows at a time: memory is that of one batch, whatever `n` is (and of
        one label each with a `condition`).

        Raises: InputError, at once and not when the first batch is asked for.
        """
        n, batch = latents.whole("n", n, 1), latents.whole("batch", batch, 1, MAX_SAMPLES)
        noise.check_seed(seed)
        self._check_truncation(truncation)
        classes = self.manifest.sampler.classes
        labels = None if condition is None else row_labels(condition, n, classes)

        def batches() -> Iterator[Array]:
            for start in range(0, n, batch):
                held = range(start, min(start + batch, n))
                own = None if labels is None else labels[held.start : held.stop]
                yield self.sample_rows([seed] * len(held), held, own, truncation=truncation)

        return batches()

    def sample_rows(
        self,
        seeds: Sequence[int],
        indices: Sequence[int],
        labels: Sequence[int] | None = None,
        *,
        truncation: float | None = None,
    ) -> Array:
        """One sample per (seed, index), shape (len(seeds), *sample_shape). Row r depends on (seeds[r],
        indices[r]) and, in a conditional model, labels[r] alone.

        A sample of a text model is a row of token ids: the start token, and what is drawn after it.

        Args:
            labels: one per row, as `row_labels` checks them; by default the index modulo the classes.
            truncation: as in `sample`.
        """
        self._check_truncation(truncation)
        match self.manifest.sampler:
            case LatentSampler(graph=graph, input=name, output=output, latent_shape=shape) as sampler:
                inputs = {name: noise.normal(seeds, indices, shape, truncation=truncation)}
                if sampler.condition is not None:
                    inputs[sampler.condition.name] = np.array(rows_of(labels, indices, sampler), np.int64)
                return self.run_rows(graph, inputs)[output]
            case CodeSampler() as sampler:
                return codes.sample(self, sampler, seeds, indices, rows_of(labels, indices, sampler))
            case TextSampler():
                return self._sample_tokens(seeds, indices)

    def _check_truncation(self, truncation: float | None) -> None:
        """Only latents are truncated."""
        if noise.check_truncation(truncation) is not None:
            latents.latent_sampler(self)

    def encode(self, x: Any, *, condition: object | None = None) -> latents.Posterior | Array:
        """q(z|x) of each example, (n, *sample_shape): `.mean` and `.log_var`, (n, *latent_shape) each; for a
        VQ-VAE the indices of its codes, (n, *code_shape), which depend on no condition.

        Args:
            condition: the examples' labels in a conditional model, as in `sample`; they must be given.

        Raises: InputError, also for a model without an encoder, such as a GAN.
        """
        if isinstance(self.manifest.sampler, CodeSampler):
            return codes.encode(self, x, condition)
        return latents.encode(self, x, condition)

    def decode(self, z: Any, *, condition: object | None = None) -> Array:
        """The sample of each latent, (n, *sample_shape) for `z` of shape (n, *latent_shape); also of a GAN.
        For a VQ-VAE `z` are indices of codes, (n, *code_shape).

        Raises: InputError.
        """
        if isinstance(self.manifest.sampler, CodeSampler):
            return codes.decode(self, self.manifest.sampler, z, condition)
        return latents.decode(self, z, condition)

    def reconstruct(self, x: Any, *, condition: object | None = None) -> Array:
        """Each example decoded from the mean of its q(z|x), or from its codes, of the shape of `x`. Raises as
        `encode` does.
        """
        encoded = self.encode(x, condition=condition)
        z = encoded.mean if isinstance(encoded, latents.Posterior) else encoded
        return self.decode(z, condition=condition)

    def interpolate(
        self, a: Any, b: Any, steps: int = 8, *, spherical: bool = True, condition: object | None = None
    ) -> Array:
        """Samples on the way from latent `a` to latent `b`, both included, shape (steps, *sample_shape).

        Args:
            a, b: one latent each, of `latent_shape`: drawn, or an example's `encode(x).mean[0]`.
            spherical: along an arc, where draws of the prior lie, and not along a line.

        Raises: InputError.
        """
        return latents.interpolate(self, a, b, steps, spherical, condition)

    def traversal(
        self,
        z: Any = None,
        *,
        dimensions: Sequence[int] | None = None,
        values: Sequence[float] = TRAVERSAL,
        condition: object | None = None,
    ) -> Array:
        """What each dimension of the latent does: a grid in which one dimension of `z` (0 by default, the
        prior's mean) is set to each value, shape (len(dimensions), len(values), *sample_shape).

        Args:
            dimensions: which, all of them by default; a latent of several axes is counted flat.

        Raises: InputError.
        """
        return latents.traversal(self, z, dimensions, values, condition)

    def log_prob(self, x: Any, *, samples: int = 64, seed: int = 0, condition: object | None = None) -> Array:
        """A lower bound of log p(x) in nats for each example, float64 of shape (n,): importance-weighted, so
        it rises towards log p(x) with `samples` in expectation.

        Example i is weighed with the noise of (`seed`, i), whatever is beside it.

        Source: Burda et al. 2016, arXiv:1509.00519, eq. 8 (vae.iwae).

        Raises: InputError, also for a model without a likelihood, such as a GAN.
        """
        return latents.log_prob(self, x, samples, seed, condition)

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

        Raises `InputError` for a model without text.
        """
        sampler, tokenizer = self.text_sampler, self.tokenizer
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
                made[event.id].append(event.token_id)
        rows = [row[:length] for row in made.values()]
        return np.array(rows, dtype=spec.dtype).reshape(len(rows), *map(int, spec.shape))

    def close(self) -> None:
        """Let go of sessions and mapped files."""
        self.backend.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
