"""What can be done with the latents of a model: the bodies of `Engine.encode`, `decode`, `log_prob`, ..."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from triptych.bundle import noise
from triptych.bundle.condition import row_labels
from triptych.bundle.consistency import LEARNED
from triptych.bundle.manifest import WEIGHTS, CodeSampler, GraphRecord, LatentSampler, TensorSpec
from triptych.errors import BundleRefused, InputError, NotFoundError
from triptych.infer import formulas
from triptych.infer.graph_runner import GraphRunner
from triptych.infer.inputs import check_tensor
from triptych.infer.request import as_tuple

Array = np.ndarray

ENCODE, MEAN, LOG_VAR = "encode", "mean", "log_var"
PIXEL_LOG_VAR, LOG_VAR_LIMIT = "pixel_log_var", 10.0
PIECE = 1024  # latents decoded at once, so that memory is bounded
MAX_SAMPLES = MAX_DRAWS = 1_000_000


class Posterior(NamedTuple):
    """q(z|x) = N(mean, exp(log_var)), float32 of shape (n, *latent_shape) each."""

    mean: Array
    log_var: Array


def encode(engine: GraphRunner, x: Any, condition: object | None) -> Posterior:
    """See `Engine.encode`."""
    sampler, graph = latent_sampler(engine), encoder(engine)
    x = check_tensor(graph.name, graph.inputs[0], x, {})
    inputs = {graph.inputs[0].name: x, **labels(sampler, condition, len(x))}
    outputs = engine.run_rows(graph.name, inputs)
    return Posterior(outputs[MEAN], outputs[LOG_VAR])


def decode(engine: GraphRunner, z: Any, condition: object | None) -> Array:
    """See `Engine.decode`."""
    sampler = latent_sampler(engine)
    graph = engine.graph(sampler.graph)
    spec = next(spec for spec in graph.inputs if spec.name == sampler.input)
    z = check_tensor(graph.name, spec, z, {})
    return engine.run_rows(graph.name, {spec.name: z, **labels(sampler, condition, len(z))})[sampler.output]


def interpolate(
    engine: GraphRunner, a: Any, b: Any, steps: int, spherical: bool, condition: object | None
) -> Array:
    """See `Engine.interpolate`."""
    start, end = (one_latent(engine, "interpolate", name, value) for name, value in (("a", a), ("b", b)))
    t = np.linspace(0.0, 1.0, whole("steps", steps, 2, MAX_SAMPLES))
    way = formulas.spherical if spherical else formulas.linear
    z = way(start.astype(np.float64).ravel(), end.astype(np.float64).ravel(), t)
    return decode(engine, z.astype(np.float32).reshape(len(t), *start.shape), condition)


def traversal(
    engine: GraphRunner,
    z: Any,
    dimensions: Sequence[int] | None,
    values: Sequence[float],
    condition: object | None,
) -> Array:
    """See `Engine.traversal`."""
    shape = latent_sampler(engine).latent_shape
    start = np.zeros(shape, np.float32) if z is None else one_latent(engine, "traversal", "z", z)
    size = math.prod(shape)
    valid = f"integers from 0 to {size - 1}"
    given = range(size) if dimensions is None else as_tuple("dimensions", dimensions, valid)
    chosen = [whole("dimensions", dimension, 0, size - 1) for dimension in given]
    settings = check_tensor("traversal", TensorSpec(name="values", shape=("values",)), values, {})
    if not chosen:
        raise InputError("got none", where="dimensions", valid=valid)
    latents = np.broadcast_to(start.ravel(), (len(chosen), len(settings), size)).copy()
    for row, dimension in zip(latents, chosen, strict=True):
        row[:, dimension] = settings
    made = decode(engine, latents.reshape(-1, *shape), condition)
    return made.reshape(len(chosen), len(settings), *made.shape[1:])


def log_prob(engine: GraphRunner, x: Any, samples: int, seed: int, condition: object | None) -> Array:
    """See `Engine.log_prob`."""
    sampler, count = latent_sampler(engine), whole("samples", samples, 1, MAX_DRAWS)
    likelihood = engine.manifest.config.get("likelihood")
    if likelihood not in formulas.LIKELIHOODS:
        name, valid = engine.manifest.name, f"a model whose likelihood is {', '.join(formulas.LIKELIHOODS)}"
        raise InputError("has no likelihood of an example", where=name, valid=valid)
    mean, log_var = encode(engine, x, condition)
    x = np.asarray(x, np.float64).reshape(len(mean), -1)
    given, scale = labels(sampler, condition, len(x)), pixel_log_var(engine)
    together = max(1, PIECE // count)
    bounds = []
    for start in range(0, len(x), together):
        rows = np.arange(start, min(start + together, len(x)))
        draws = noise.normal(
            [seed] * len(rows), rows.tolist(), (count, *mean.shape[1:]), domain=noise.POSTERIOR
        )
        weights = np.empty((len(rows), count))
        for held in pieces(weights.size):
            example, draw = np.divmod(np.arange(held.start, held.stop), count)
            row = rows[example]
            m, v = flat(mean[row]), flat(log_var[row])
            z = formulas.reparameterize(m, v, flat(draws[example, draw])).astype(np.float32)
            inputs = {name: array[row] for name, array in given.items()}
            inputs[sampler.input] = z.reshape(-1, *mean.shape[1:])
            image = flat(engine.run_rows(sampler.graph, inputs)[sampler.output])
            fit = formulas.LIKELIHOODS[likelihood](x[row], image, scale)
            weights.reshape(-1)[held] = formulas.log_weights(fit, z.astype(np.float64), m, v)
        bounds.append(formulas.iwae(weights))
    return np.concatenate(bounds)


def pixel_log_var(engine: GraphRunner) -> float:
    """The Gaussian likelihood's log-variance of a pixel: learned, or fixed by the config's sigma."""
    sigma = engine.manifest.config.get("sigma")
    try:
        found = float(engine.tensor(PIXEL_LOG_VAR)) if sigma == LEARNED else 2 * math.log(sigma or 1.0)
    except (NotFoundError, TypeError) as error:  # TypeError: it is an array
        problem = f"{PIXEL_LOG_VAR}, the likelihood's learned sigma, is not one number in it"
        raise BundleRefused(problem, where=WEIGHTS) from error
    return min(LOG_VAR_LIMIT, max(-LOG_VAR_LIMIT, found))


def pieces(rows: int) -> Iterator[slice]:
    """`rows` rows in pieces of at most `PIECE`."""
    for start in range(0, rows, PIECE):
        yield slice(start, min(start + PIECE, rows))


def flat(array: Array) -> Array:
    """Rows as float64 vectors."""
    return array.reshape(len(array), -1).astype(np.float64)


def latent_sampler(engine: GraphRunner) -> LatentSampler:
    """How this model draws from latents. Raises `InputError` for a model of text or of codes."""
    if isinstance(engine.manifest.sampler, CodeSampler):
        remedy = "use sample, encode, decode or reconstruct"
        raise InputError("has codes and no continuous latents", where=engine.manifest.name, remedy=remedy)
    if not isinstance(engine.manifest.sampler, LatentSampler):
        raise InputError("has no latents", where=engine.manifest.name, remedy="use generate")
    return engine.manifest.sampler


def encoder(engine: GraphRunner) -> GraphRecord:
    """The graph from an example to its latents. Raises `InputError` for a model without one."""
    graphs = {graph.name: graph for graph in engine.manifest.graphs}
    if ENCODE not in graphs:
        family, valid = engine.manifest.family, f"its {', '.join(graphs)}"
        remedy = f"a {family} only draws latents; train a vae to find those of an example"
        raise InputError("has no encoder", where=engine.manifest.name, valid=valid, remedy=remedy)
    return graphs[ENCODE]


def labels(sampler: LatentSampler, condition: object | None, rows: int) -> dict[str, Array]:
    """The input of a conditional model's graphs that holds the label of each row; nothing otherwise.

    Raises: InputError when a conditional model is given none: whoever has an example knows its label.
    """
    if sampler.condition is not None and condition is None:
        valid = f'{{"label": 0 to {(sampler.classes or 1) - 1}}}, or a list of {rows} labels'
        raise InputError("is missing", where="condition", valid=valid)
    found = row_labels(condition, rows, sampler.classes)
    if sampler.condition is None or found is None:
        return {}
    return {sampler.condition.name: np.array(found, np.int64)}


def one_latent(engine: GraphRunner, where: str, name: str, value: Any) -> Array:
    """One latent, without a batch axis."""
    return check_tensor(where, TensorSpec(name=name, shape=latent_sampler(engine).latent_shape), value, {})


def whole(where: str, value: object, low: int, high: int | None = None) -> int:
    """`value` if it is an integer in its range, else `InputError`."""
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if integer and low <= int(value) and (high is None or int(value) <= high):  # type: ignore[call-overload]
        return int(value)  # type: ignore[call-overload, no-any-return]
    valid = f"an integer from {low}" + ("" if high is None else f" to {high}")
    raise InputError(f"got {value!r}", where=where, valid=valid)
