"""What a lower precision changes, in a unit that means something to the model.

A likelihood model's decoder is a distribution p(x|z), so what changes is the divergence from it: what an
example drawn from the model loses in log-likelihood, in nats. It needs no data, so any machine can measure
it. The same holds for the encoder's q(z|x). A GAN's samples have no likelihood: they are compared with
float32's by the Fréchet distance on random features (not those of Inception: nothing is downloaded), as
a share of the distance between two draws of float32. Other outputs are compared as they are: the root mean
square error, as a part of their range, against half a step of an 8-bit picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from triptych.bundle.manifest import GraphRecord, LatentSampler, Quality
from triptych.infer import formulas
from triptych.infer.engine import Engine
from triptych.infer.latents import ENCODE, LOG_VAR, MEAN, flat, pixel_log_var

Array = np.ndarray

NATS, RMS, FRECHET = "kl_nats", "rms_error", "frechet_share"
LIMITS = {NATS: 0.05, RMS: 0.5 / 255, FRECHET: 0.1}  # models are told apart by a tenth of a nat
DRAW, FEATURES = 256, 32  # samples in a draw, and random features of each
DIVERGENCES = {
    "bernoulli": formulas.kl_bernoulli,
    "gaussian": lambda mean, other, log_var: formulas.kl_gaussian(mean, other, log_var, log_var),
}


def quality(
    engine: Engine, graph: GraphRecord, exact: Mapping[str, Array], found: Mapping[str, Array]
) -> Quality:
    """How far the outputs `found` of `graph` are from `exact`, on the same inputs.

    Args:
        engine: the model in float32.
    """
    sampler, likelihood = engine.manifest.sampler, str(engine.manifest.config.get("likelihood"))
    if isinstance(sampler, LatentSampler) and graph.name == sampler.graph and likelihood in DIVERGENCES:
        images = flat(exact[sampler.output]), flat(found[sampler.output])
        nats = DIVERGENCES[likelihood](*images, pixel_log_var(engine))
        return measured(NATS, float(nats.mean()))
    if graph.name == ENCODE and {MEAN, LOG_VAR} <= exact.keys():
        q, other = ((flat(outputs[MEAN]), flat(outputs[LOG_VAR])) for outputs in (exact, found))
        return measured(NATS, float(formulas.kl_gaussian(q[0], other[0], q[1], other[1]).mean()))
    worst = 0.0
    for spec in graph.outputs:
        wanted, given = flat(exact[spec.name]), flat(found[spec.name])
        bounded = spec.low is not None and spec.high is not None
        span = (spec.high or 0.0) - (spec.low or 0.0) if bounded else float(np.ptp(wanted))
        worst = max(worst, float(np.sqrt(np.square(wanted - given).mean())) / (span or 1.0))
    return measured(RMS, worst)


def has_likelihood(engine: Engine) -> bool:
    """Whether the model's samples are drawn from a distribution with a density that is known."""
    return str(engine.manifest.config.get("likelihood")) in DIVERGENCES


def of_draws(exact: Array, found: Array, other: Array) -> Quality:
    """How far the samples `found` are from `exact`, of the same latents, as a share of how far those are from
    `other`, of other latents: the Fréchet distance on fixed random features of both.
    """
    middle, spread = exact.mean(dtype=np.float64), float(exact.std()) or 1.0
    width = flat(exact).shape[1]
    directions = np.random.default_rng(0).standard_normal((width, FEATURES)) / np.sqrt(width)
    a, b, c = (np.tanh((flat(drawn) - middle) / spread @ directions) for drawn in (exact, found, other))
    apart, usual = formulas.frechet(a, b), formulas.frechet(a, c)
    return measured(FRECHET, max(apart, 0.0) / (usual or 1.0))


def measured(measure: str, value: float) -> Quality:
    """A value beside what is allowed."""
    return Quality(measure=measure, value=value, limit=LIMITS[measure])


def verdict(quality: Quality) -> str:
    """Why a precision of this quality may not be used; empty if it may."""
    if quality.value <= quality.limit:
        return ""
    if quality.measure == NATS:
        return f"it changes the model by {quality.value:.3g} nats an example; {quality.limit:.3g} are allowed"
    value, limit = quality.value, quality.limit
    if quality.measure == FRECHET:
        return (
            f"its samples are {value:.3g} times as far from those of float32 as another draw of them (Fréchet"
            f" distance on random features); {limit:.3g} times are allowed"
        )
    return f"its outputs are {value:.3g} of their range off (RMS); {limit:.3g} are allowed"
