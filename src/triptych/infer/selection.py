"""Which way each graph is computed: by request, by calibration, and never one that fails its gate."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence

from triptych.bundle.manifest import (
    Calibration,
    Manifest,
    Measurement,
    TextPrecision,
    TextSampler,
    TokenSampler,
)
from triptych.bundle.reader import Bundle
from triptych.bundle.wire import external_bytes
from triptych.errors import ConfigError, DataError
from triptych.infer import calibration_store
from triptych.infer.same_bytes import SIZES
from triptych.infer.ways import INT8, PLAIN, WAYS, Choice, Way, computes, obstacle

AUTO = "auto"
ENGINES = (AUTO, *dict.fromkeys(way.engine for way in WAYS))
CACHE_PRECISIONS = ("f32", "f16", INT8)
OPERATORS = ANY, STANDARD = "any", "standard"
PRECISIONS = (AUTO, *dict.fromkeys(way.precision for way in WAYS))
WORTHWHILE = 1.25  # how many times faster than onnxruntime a second engine must be to be loaded beside it
LARGE_BYTES = 4 * 2**20  # of weights: each process holds a copy for OpenVINO, and none for onnxruntime
WORTHWHILE_IF_LARGE = 2.0  # in onnxruntime's own precision; another one was asked for

log = logging.getLogger(__name__)


def choices(bundle: Bundle, engine: str, precision: str, threads: int) -> dict[str, Choice]:
    """How each graph is computed; a graph that is not named is computed plainly.

    Raises: ConfigError when no way that was asked for is there, or passes its gate.
    """
    wanted = [way for way in WAYS if engine in (AUTO, way.engine) and precision in (AUTO, way.precision)]
    if not wanted:
        valid = ", ".join(str(way) for way in WAYS)
        raise ConfigError(f"got {precision!r} with engine {engine!r}", where="precision", valid=valid)
    rounded = {graph.int8_graph for graph in bundle.manifest.graphs}
    exact = Way(PLAIN.engine if engine == AUTO else engine, PLAIN.precision)
    by_graph = {
        graph.name: [way for way in wanted if computes(way, graph)] or [exact]
        for graph in bundle.manifest.graphs
        if graph.name not in rounded
    }
    calibration = calibration_store.find(bundle.manifest)
    if calibration is None:
        if all(PLAIN in ways for ways in by_graph.values()):
            if len(wanted) > 1:
                told = (
                    "no calibration of it on this machine: onnxruntime in f32 computes it; triptych calibrate"
                )
                log.log(logging.WARNING if precision == AUTO else logging.INFO, "%s: %s", bundle.folder, told)
            return {}
        calibration = calibrate_now(bundle, wanted, threads)
    elif lacks(calibration, bundle.manifest, by_graph):  # an earlier version made it, which knew fewer ways
        calibration = calibrate_now(bundle, wanted, threads)
    return {
        graph: choice
        for graph, ways in by_graph.items()
        if (choice := choose(graph, ways, calibration, external_bytes(bundle.graphs[graph]))) is not None
    }


def lacks(calibration: Calibration, manifest: Manifest, by_graph: Mapping[str, Sequence[Way]]) -> bool:
    """Whether a graph was tried in none of the ways that it may be computed, though it could have been."""
    from triptych.infer.calibration import is_row_graph

    tried = {(found.graph, way_of(found)) for found in calibration.measurements}
    untried = [
        ways
        for graph in manifest.graphs
        if is_row_graph(graph) and (ways := by_graph.get(graph.name)) and PLAIN not in ways
        if not any((graph.name, way) in tried for way in ways)
    ]
    return any(not all(map(obstacle, ways)) for ways in untried)


def token_graph(
    manifest: Manifest, precision: str, cache_precision: str = "f32", operators: str = ANY
) -> str | None:
    """The graph that reads tokens: with rounded weights if asked for, or if "auto" and within the gate, with
    the cache in the precision asked for, or in standard operators.

    No clock decides, so that every worker takes the same one and gives the same bytes. None for a model
    without a cached step.

    Raises: ConfigError when what is asked for is not there, or fails its gate.
    """
    sampler = manifest.sampler
    if operators == STANDARD:
        return standard_graph(manifest, precision, cache_precision)
    kept = sampler.precisions if isinstance(sampler, TextSampler) else ()
    if precision == INT8 and any(graph.int8_graph for graph in manifest.graphs):
        precision = AUTO  # it is row graphs that are in int8
    weights = {AUTO: (INT8, "f32"), INT8: (INT8,)}.get(precision, ("f32",))
    if (cache_precision, weights[-1]) == ("f32", "f32"):
        kept = (*kept, TextPrecision(precision="f32", graph=sampler.graph))
    ways = {(found.precision, found.cache_precision): found for found in kept}
    usable = [way for each in weights if (way := ways.get((each, cache_precision))) is not None]
    for found in usable:
        if not found.refused:
            return found.graph if isinstance(sampler, TokenSampler) else None
    where, wanted = ("precision", INT8) if cache_precision == "f32" else ("cache_precision", cache_precision)
    if usable:
        raise ConfigError(usable[-1].refused, where=where, remedy="take f32")
    what = "no graph" if where == "precision" else "no cached step with its cache"
    raise ConfigError(f"{manifest.name} holds {what} in {wanted}", where=where, remedy="take f32")


def standard_graph(manifest: Manifest, precision: str, cache_precision: str) -> str:
    """The cached step in operators of ONNX alone, which is there in float32."""
    sampler = manifest.sampler
    if not isinstance(sampler, TokenSampler) or not sampler.standard_graph:
        raise ConfigError(
            f"{manifest.name} holds no cached step in them", where="operators=standard", remedy=f"take {ANY}"
        )
    for where, got in (("precision", precision), ("cache_precision", cache_precision)):
        if got not in ("f32", AUTO):
            raise ConfigError(
                f"got {got!r} with operators={STANDARD!r}",
                where=where,
                valid="f32",
                remedy=f"or operators={ANY!r}",
            )
    return sampler.standard_graph


def calibrate_now(bundle: Bundle, wanted: Iterable[Way], threads: int) -> Calibration:
    """A calibration, kept: without one an engine other than onnxruntime does not know its batch sizes."""
    from triptych.infer.calibration import calibrate

    missing = [obstacle(way) for way in wanted]
    if all(missing):
        raise ConfigError(missing[0], where="engine", remedy="engine='auto' takes what is there")
    log.info("%s: calibrating, because it never was on this machine in such a way", bundle.folder)
    calibration = calibrate(bundle, threads)
    try:
        calibration_store.keep(bundle.manifest, calibration)
    except DataError as error:
        log.warning("%s: the calibration is not kept: %s", bundle.folder, error)
    return calibration


def choose(
    graph: str, wanted: Sequence[Way], calibration: Calibration, weights_bytes: int = 0
) -> Choice | None:
    """The fastest wanted way that passed its gate, or onnxruntime if it is not much slower; None for a graph
    that only onnxruntime computes.
    """
    found = {way: m for m in calibration.measurements if m.graph == graph and (way := way_of(m)) in wanted}
    usable = {way: measurement for way, measurement in found.items() if not measurement.refused}
    if not usable:
        if PLAIN in wanted:
            return None
        raise refused(graph, wanted, found)
    sizes = [size for size in SIZES if size <= max(max(m.row_buckets) for m in usable.values())]
    fastest = min(usable, key=lambda way: cost(usable[way], sizes))
    is_large = weights_bytes >= LARGE_BYTES and fastest.precision == PLAIN.precision
    worthwhile = WORTHWHILE_IF_LARGE if is_large else WORTHWHILE
    if PLAIN in usable and cost(usable[PLAIN], sizes) < worthwhile * cost(usable[fastest], sizes):
        fastest = PLAIN
    return Choice(fastest, usable[fastest].row_buckets)


def refused(graph: str, wanted: Sequence[Way], found: dict[Way, Measurement]) -> ConfigError:
    """Why no wanted way may compute a graph."""
    reasons = [
        f"{way}: {found[way].refused if way in found else obstacle(way) or 'it computes row graphs only'}"
        for way in wanted
    ]
    remedy = "engine='auto', precision='auto' takes for each graph the fastest way that passes its gate"
    return ConfigError("; ".join(reasons), where=f"graph {graph}", remedy=remedy)


def way_of(measurement: Measurement) -> Way:
    """The way that was measured."""
    return Way(measurement.engine, measurement.precision)


def cost(measurement: Measurement, sizes: Sequence[int]) -> float:
    """Seconds of a batch, the geometric mean over `sizes`: a size that is none of its own runs as the next
    larger, or as several of its largest."""
    times = measurement.latency_s
    largest = max(times)
    above = {size: min((held for held in times if held >= size), default=largest) for size in sizes}
    return statistics.geometric_mean(times[above[size]] * max(1.0, size / largest) for size in sizes)
