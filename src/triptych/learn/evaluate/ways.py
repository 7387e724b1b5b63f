"""What computing in another way changes on data, in nats: an engine and precision beside another.

Both sides see the same examples and the same noise, so the change is known far better than either figure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from triptych.bundle.condition import LABEL
from triptych.bundle.manifest import LatentSampler, TextSampler
from triptych.errors import ConfigError
from triptych.infer import Engine
from triptych.infer.choosing import log_probabilities
from triptych.infer.formulas import LIKELIHOODS
from triptych.learn.data.split import Split
from triptych.learn.models.base import Batch
from triptych.learn.models.figures import mean_and_error

Array = np.ndarray

EXAMPLES, BLOCKS = 10_000, 64  # of a VAE, of a text: a matter of seconds
ROWS = 64


def change(exact: Engine, other: Engine, split: Split) -> dict[str, float]:
    """The figures of both engines of one model on the first of `split`, and the change between them.

    A likelihood model's is its ELBO per example, a text model's the negative log-likelihood per token, each
    token predicted by the cached step from those of its block.

    Raises: ConfigError for a model without a likelihood.
    """
    manifest = exact.manifest
    if isinstance(manifest.sampler, TextSampler):
        name, measure, most = "nll_nats_per_token", nll, BLOCKS
    elif isinstance(manifest.sampler, LatentSampler) and manifest.config.get("likelihood") in LIKELIHOODS:
        name, measure, most = "elbo_nats", bound, EXAMPLES
    else:
        remedy = "`triptych inspect` shows how far its outputs are from those in float32"
        raise ConfigError(f"a {manifest.family} has no likelihood", where=manifest.name, remedy=remedy)
    pairs = [(measure(exact, batch), measure(other, batch)) for batch in batches(split, most)]
    before, after = (torch.from_numpy(np.concatenate(side)) for side in zip(*pairs, strict=True))
    figures = {f"{name}_f32": before.mean().item(), name: after.mean().item()}
    return figures | mean_and_error(f"{name}_change", [after - before]) | {"numbers": len(before)}


def batches(split: Split, most: int) -> Iterator[Batch]:
    """The first examples of a split, about so many."""
    for batch, _ in split.whole(ROWS):
        yield batch
        most -= len(batch)
        if most <= 0:
            return


def bound(engine: Engine, batch: Batch) -> Array:
    """The ELBO of each example, with one draw of q(z|x)."""
    labels = batch.labels if engine.manifest.sampler.classes else None
    condition = None if labels is None else {LABEL: labels.numpy()}
    return engine.log_prob(batch.x.numpy(), samples=1, condition=condition)


def nll(engine: Engine, batch: Batch) -> Array:
    """The negative log-likelihood of each token of each block but its first."""
    tokens = batch.x.numpy()
    decoder, rows = engine.backend.decoder(engine.token_graph, len(tokens)), np.arange(len(tokens))
    found = []
    for place in range(tokens.shape[1] - 1):
        logits = decoder.step(tokens[:, place].tolist(), [place] * len(tokens))
        found.append(-log_probabilities(logits)[rows, tokens[:, place + 1]])
    return np.concatenate(found)
