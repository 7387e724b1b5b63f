"""A loaded bundle, ready to run: what `triptych.load` gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from triptych.bundle import noise
from triptych.bundle.condition import LABEL, row_labels
from triptych.bundle.manifest import CodeSampler, LatentSampler, TextSampler
from triptych.errors import InputError
from triptych.infer import codes, latents
from triptych.infer.latents import MAX_SAMPLES
from triptych.infer.request import as_tuple
from triptych.infer.text_generator import TextGenerator

Array = np.ndarray

STREAM_BATCH = 1024
TRAVERSAL = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def check_rows(seeds: Sequence[int], indices: Sequence[int]) -> None:
    """Raise `InputError` unless there is a seed for each index, and one at least."""
    if not 1 <= len(indices) == len(seeds):
        got = f"got {len(seeds)} seeds and {len(indices)} indices"
        raise InputError(got, where="sample_rows", valid="as many of one as of the other, 1 or more")
    for index in (indices[0], indices[-1]) if isinstance(indices, range) else indices:
        noise.check_seed(index, "indices")


def rows_of(labels: Sequence[int] | None, indices: Sequence[int], classes: int | None) -> Sequence[int]:
    """The label of each row: as given and checked, or by default the index modulo the classes."""
    if labels is None:
        return [index % classes for index in indices] if classes else [0] * len(indices)
    given = list(as_tuple("labels", labels, "one label per row"))
    return row_labels({LABEL: given}, len(indices), classes) or ()


class Engine(TextGenerator):
    """Runs one bundle. The same request gives the same bytes, whatever else is computed beside it.

    `run`, `run_rows` and `sample_rows` may be called from several threads at once.
    """

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
            labels: one per row of a conditional model, as `row_labels` checks them; by default the index
                modulo the classes.
            truncation: as in `sample`.

        Raises: InputError.
        """
        check_rows(seeds, indices)
        self._check_truncation(truncation)
        labels = rows_of(labels, indices, self.manifest.sampler.classes)
        match self.manifest.sampler:
            case LatentSampler(graph=graph, input=name, output=output, latent_shape=shape) as sampler:
                inputs = {name: noise.normal(seeds, indices, shape, truncation=truncation)}
                if sampler.condition is not None:
                    inputs[sampler.condition.name] = np.array(labels, np.int64)
                return self.run_rows(graph, inputs)[output]
            case CodeSampler() as sampler:
                return codes.sample(self, sampler, seeds, indices, labels)
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
