"""What a lower precision changes, in a unit that means something to the model.

A likelihood model's decoder is a distribution p(x|z), so what changes is the divergence from it: what an
example drawn from the model loses in log-likelihood, in nats. It needs no data, so any machine can measure
it. The same holds for the encoder's q(z|x). Outputs without a likelihood (a GAN's) are compared as they
are: the root mean square error, as a part of their range, against half a step of an 8-bit picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from triptych.bundle.manifest import GraphRecord, LatentSampler, Quality
from triptych.infer import formulas
from triptych.infer.engine import Engine
from triptych.infer.latents import ENCODE, LOG_VAR, MEAN, flat, pixel_log_var

Array = np.ndarray

NATS, RMS = "kl_nats", "rms_error"
LIMITS = {NATS: 0.05, RMS: 0.5 / 255}  # models are told apart by a tenth of a nat
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
    return f"its outputs are {value:.3g} of their range off (RMS); {limit:.3g} are allowed"
