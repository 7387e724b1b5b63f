"""From a trained model to a bundle.

Weights go to one safetensors file, each graph to an ONNX file that points into it. Then the graphs are run by
the engine as a reader of the bundle would, and compared with torch: a graph that is further away than
rounding explains is not exported.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import groupby, product
from pathlib import Path
from typing import Any

import msgspec
import torch
from onnx import ModelProto
from safetensors.torch import save_file
from torch import Tensor

import triptych
from triptych.bundle import card, consistency, pictures, reader, weights, wire, writer
from triptych.bundle.manifest import (
    FORMAT_VERSION,
    README,
    SAMPLES_PICTURE,
    SAMPLES_TEXT,
    TOKENIZER,
    WEIGHTS,
    GraphRecord,
    Manifest,
    Parity,
    TextPrecision,
    TextSampler,
    TokenSampler,
)
from triptych.bundle.rounded import CACHE_SCALE
from triptych.errors import BundleError, ExportError
from triptych.infer import machine
from triptych.infer.calibration import calibrate
from triptych.infer.engine import Engine
from triptych.infer.onnx_runtime import OnnxRuntimeBackend
from triptych.learn import graphs as onnx_graphs
from triptych.learn import int8, int8_rows, parity, rounded_cache
from triptych.learn.models.base import GenerativeModel, Graph
from triptych.learn.standard import standard_graph

ROWS, COLUMNS, MAX_COLUMNS = 8, 8, 16  # of pictures
TEXTS = 4
THREADS = (1, 2)
PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "safetensors")


def export(
    model: GenerativeModel,
    destination: str | os.PathLike[str],
    *,
    name: str | None = None,
    training: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
) -> Path:
    """Write `model` as a bundle, and return its folder.

    Args:
        destination: a new folder, or an earlier bundle, which is replaced.
        name: what the bundle is called; the folder's name if none is given.
        training: what to remember of the training, for the model card.
        tokenizer: `tokenizers` JSON; text models need it.

    Raises: ExportError when the destination is something else, a graph cannot be written without a copy of a
    weight,
        or a graph's answers are further from torch's than rounding explains.
    """
    folder = Path(destination)
    writer.check_destination(folder.absolute())
    if not consistency.is_name(called := name or folder.name):
        raise ExportError(f"got {called!r}", where="name", valid=consistency.NAME_RULE)
    if isinstance(model.sampler(), TextSampler) and tokenizer is None:
        raise ExportError("a text model needs its tokenizer", where=model.family, remedy="pass tokenizer=")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return writer.write(folder, lambda scratch: fill(scratch, model, called, training, tokenizer))
    finally:
        model.train(was_training)


def fill(
    folder: Path, model: GenerativeModel, name: str, training: Mapping[str, Any] | None, tokenizer: str | None
) -> Manifest:
    """Write every file but the manifest into `folder`; returns the manifest."""
    tensors, sampler = stored(model), model.sampler()
    names = {onnx_graphs.identity(tensor): key for key, tensor in tensors.items()}
    to_export = model.graphs()
    models = [onnx_graphs.to_onnx(graph, names) for graph in to_export]
    plans: dict[str, int8_rows.Plan] = {}
    if isinstance(sampler, TextSampler):
        exact = next(graph for graph in to_export if graph.name == sampler.graph)
        tensors |= int8.rounded_weights(model, tensors) | rounded_cache.scales(exact, sampler.start_token)
    else:
        pairs = zip(to_export, models, strict=True)
        plans = {graph.name: int8_rows.plan(model, graph, traced, names) for graph, traced in pairs}
        tensors |= int8_rows.rounded_weights(plans.values(), tensors)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    if tokenizer is not None:
        (folder / TOKENIZER).write_text(tokenizer, "utf-8")
    extents = weights.extents(folder / WEIGHTS)
    for traced in models:
        onnx_graphs.locate(traced, extents)
    if isinstance(sampler, TokenSampler):
        to_export, models = with_derived(to_export, models, sampler, tensors, extents)
    to_export, models = int8_rows.with_rounded(to_export, models, plans, names, extents)
    records = with_links(tuple(map(partial(write_graph, folder), to_export, models)))
    draft = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        family=model.family,
        version="",
        config=msgspec.to_builtins(model.config),
        sample=model.sample_spec(),
        sampler=sampler,
        graphs=records,
        files={},
        training=msgspec.to_builtins(dict(training or {})),
        created_with={
            "triptych": triptych.__version__,
            **{package: version(package) for package in PACKAGES},
        },
    )
    manifest = measured(folder, draft, to_export)
    write_samples(folder, manifest, tokenizer)
    (folder / README).write_text(card.describe(manifest), "utf-8")
    return manifest


def stored(model: GenerativeModel) -> dict[str, Tensor]:
    """The model's tensors by name, each once: of two names for the same bytes the first is kept."""
    kept = {onnx_graphs.identity(tensor): name for name, tensor in reversed(model.state_dict().items())}
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if kept[onnx_graphs.identity(tensor)] == name
    }


def with_derived(
    graphs: Sequence[Graph],
    models: Sequence[ModelProto],
    sampler: TokenSampler,
    tensors: Mapping[str, Tensor],
    extents: Mapping[str, weights.Extent],
) -> tuple[tuple[Graph, ...], list[ModelProto]]:
    """The graphs, and what is made of the next-token graph: the same in standard operators, and for text the
    same with rounded weights, with a rounded cache, and with both."""
    place = [graph.name for graph in graphs].index(sampler.graph)
    exact, traced = graphs[place], models[place]
    derived = [(dataclasses.replace(exact, name=sampler.standard_graph), standard_graph(traced))]
    if isinstance(sampler, TextSampler):
        graph = dataclasses.replace(exact, name=f"{exact.name}_int8", rounding=int8.ROUNDING)
        derived.append((graph, int8.rounded_graph(traced, extents)))
        scales = [tensor for key, tensor in tensors.items() if key.endswith(CACHE_SCALE)]
        plain = (exact, graph), (traced, derived[-1][1])
        derived += rounded_cache.with_rounded_caches(*plain, scales, extents)
    for graph, model in derived:
        model.graph.name = graph.name
    return (*graphs, *(graph for graph, _ in derived)), [*models, *(model for _, model in derived)]


def with_links(records: Sequence[GraphRecord]) -> tuple[GraphRecord, ...]:
    """The records of row graphs, with the name of the one in eight bits where there is one."""
    names = {record.name for record in records}
    return tuple(
        msgspec.structs.replace(record, int8_graph=record.name + int8_rows.ENDING)
        if record.name + int8_rows.ENDING in names and int8_rows.takes_rows(record.inputs)
        else record
        for record in records
    )


def write_graph(folder: Path, graph: Graph, model: ModelProto) -> GraphRecord:
    """Write one graph; its record says nothing yet of what is measured."""
    file = f"{graph.name}.onnx"
    (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    onnx_graphs.check(folder / file, graph)
    return GraphRecord(
        name=graph.name,
        file=file,
        inputs=graph.inputs,
        outputs=graph.outputs,
        operator_sets={opset.domain or wire.ONNX: opset.version for opset in model.opset_import},
        engines=("onnxruntime",),
        row_buckets=(),
        parity=Parity(max_abs_error=0.0, max_ulp_error=0.0, tolerance=0.0, examples=0),
    )


def measured(folder: Path, draft: Manifest, to_export: Sequence[Graph]) -> Manifest:
    """`draft` with parity and row buckets, measured on the files as a reader of the bundle would run them."""
    contents = {record.name: (folder / record.file).read_bytes() for record in draft.graphs}
    bundle = reader.Bundle(folder, draft, weights.Weights(folder / WEIGHTS), contents)
    backends = [OnnxRuntimeBackend(bundle, threads) for threads in THREADS]
    records: list[GraphRecord] = []
    for _, held in groupby(zip(to_export, draft.graphs, strict=True), key=lambda pair: id(pair[0].module)):
        records += of_module(list(held), backends)
    judged = msgspec.structs.replace(draft, graphs=tuple(records))
    if isinstance(draft.sampler, TokenSampler):
        check_steps(draft.sampler, records)
    if isinstance(draft.sampler, TextSampler):
        sampler = with_quality(dataclasses.replace(bundle, manifest=judged))
        judged = msgspec.structs.replace(judged, sampler=sampler)
    for backend in backends:
        backend.close()
    return calibrated(dataclasses.replace(bundle, manifest=judged))


def of_module(
    graphs: Sequence[tuple[Graph, GraphRecord]], backends: Sequence[OnnxRuntimeBackend]
) -> list[GraphRecord]:
    """The records of graphs made of one module, with parity and row buckets."""
    exported = [graph for graph, _ in graphs]
    runs = [[partial(backend.run, graph.name) for backend in backends] for graph in exported]
    try:
        parities = parity.compare(exported, [each[-1] for each in runs])
        buckets = [parity.row_buckets(graph, each) for graph, each in zip(exported, runs, strict=True)]
    except BundleError as error:
        raise ExportError("the engine does not take it", where=str(error)) from error
    return [
        msgspec.structs.replace(record, parity=found, row_buckets=sizes)
        for (_, record), found, sizes in zip(graphs, parities, buckets, strict=True)
    ]


def check_steps(sampler: TokenSampler, records: Sequence[GraphRecord]) -> None:
    """Refuse a cached step that keeps a row's bytes at no batch size, as no reader could run it."""
    if problem := next(consistency.of_steps(sampler, {record.name: record for record in records}), ""):
        why = "at no batch size are a row's bytes independent of its neighbours and of the threads"
        raise ExportError(f"{why}: {problem}", where=sampler.graph, remedy="export on another machine")


def with_quality(bundle: reader.Bundle) -> TextSampler:
    """The sampler with what rounding the weights or the cache changes."""
    sampler = bundle.manifest.sampler
    assert isinstance(sampler, TextSampler)
    records = {record.name: record for record in bundle.manifest.graphs}
    found = {}
    for precision, cache in product(("f32", "int8"), ("f32", *rounded_cache.DTYPES)):
        graph = sampler.graph + f"_{precision}" * (precision != "f32") + f"_cache_{cache}" * (cache != "f32")
        found[graph] = TextPrecision(
            precision=precision,
            graph=graph,
            cache_precision=cache,
            refused=parity.refusal(records[graph].parity)
            or ("" if records[graph].row_buckets else "a row's bytes depend on the rows beside it"),
        )
    del found[sampler.graph]
    judged = [graph for graph, each in found.items() if not each.refused]
    backend = OnnxRuntimeBackend(bundle, max(THREADS))
    exact, *others = (backend.decoder(graph, int8.ROWS) for graph in (sampler.graph, *judged))
    for graph, quality in zip(judged, int8.quality(exact, others, sampler.block_size), strict=True):
        refused = int8.refusal(quality)
        kept = quality if math.isfinite(quality.value) else None
        found[graph] = msgspec.structs.replace(found[graph], quality=kept, refused=refused)
    backend.close()
    return msgspec.structs.replace(sampler, precisions=tuple(found.values()))


def calibrated(bundle: reader.Bundle) -> Manifest:
    """The manifest of `bundle` with what each engine and precision does with each graph on this machine."""
    found = calibrate(bundle, machine.cores(), just_exported=True)
    engines: dict[str, dict[str, None]] = {}
    for measurement in found.measurements:
        if not measurement.refused:
            engines.setdefault(measurement.graph, {})[measurement.engine] = None
    graphs = tuple(
        msgspec.structs.replace(record, engines=tuple(engines.get(record.name, record.engines)))
        for record in bundle.manifest.graphs
    )
    return msgspec.structs.replace(bundle.manifest, graphs=graphs, calibration=found)


def write_samples(folder: Path, manifest: Manifest, tokenizer: str | None) -> None:
    """What a person wants to see first: a grid of pictures, or a page of text."""
    contents = {record.name: (folder / record.file).read_bytes() for record in manifest.graphs}
    bundle = reader.Bundle(folder, manifest, weights.Weights(folder / WEIGHTS), contents, tokenizer)
    with Engine(bundle, OnnxRuntimeBackend(bundle, max(THREADS))) as engine:
        if isinstance(manifest.sampler, TextSampler):
            texts = [engine.tokenizer.decode(row) for row in engine.sample(TEXTS, seed=0).tolist()]
            (folder / SAMPLES_TEXT).write_text("\n\n---\n\n".join(texts) + "\n", "utf-8")
        elif pictures.is_image(manifest.sample.shape):
            classes = manifest.sampler.classes or 0
            columns = classes if 1 < classes <= MAX_COLUMNS else COLUMNS  # a column for each class
            drawn = engine.sample(ROWS * columns, seed=0)
            (folder / SAMPLES_PICTURE).write_bytes(pictures.png(drawn, columns=columns, scale=2))
