"""Does a manifest agree with itself? What a digest cannot tell, because it covers whatever was written.

Names that refer to nothing, sizes that do not fit together and batches of no rows would surface as strange
errors of an engine long after loading; here each is one sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence

from msgspec.structs import replace

from triptych.bundle.manifest import (
    TOKENIZER,
    VERSION_DIGITS,
    WEIGHTS,
    Calibration,
    CodeSampler,
    GraphRecord,
    LatentSampler,
    Manifest,
    TensorSpec,
    TextSampler,
    TokenSampler,
)
from triptych.bundle.wire import ONNX

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_ROWS, MAX_NAME_LENGTH, MAX_ELEMENTS = 65_536, 200, 2**31
# Numbers that are made room for: of one row, and of a batch, whose rows are small.
MAX_ROW_ELEMENTS, MAX_BATCH_ELEMENTS = 2**30, 2**28
BATCH, LEARNED = "batch", "learned"
CACHE_DTYPES = {"f32": "float32", "f16": "float16", "int8": "int8"}  # by precision


def problems(manifest: Manifest) -> Iterator[str]:
    """What is wrong, one sentence each; nothing for a manifest that agrees with itself."""
    if not is_name(manifest.name):
        yield f"name is {manifest.name[:80]!r}; valid: {NAME_RULE}"
    if not re.fullmatch(f"[0-9a-f]{{{VERSION_DIGITS}}}", manifest.version):
        yield f"version is {manifest.version[:80]!r}; valid: {VERSION_DIGITS} lower-case hex digits"
    yield from of_tensor("sample", manifest.sample)
    yield from of_likelihood(manifest.config)
    if not all(isinstance(size, int) for size in manifest.sample.shape):
        yield "the shape of a sample has sizes without a number"
    if not manifest.graphs:
        yield "it holds no graph"
    graphs: dict[str, GraphRecord] = {}
    for graph in manifest.graphs:
        yield from of_graph(graph)
        if graph.name in graphs or graph.file in {known.file for known in graphs.values()}:
            yield f"two graphs are called {graph.name!r} or lie in {graph.file!r}"
        graphs[graph.name] = graph
    for graph in manifest.graphs:
        rounded = graphs.get(graph.int8_graph)
        if graph.int8_graph and rounded is None:
            yield f"graph {graph.name} names graph {graph.int8_graph!r}; valid: {', '.join(graphs)}"
        elif rounded and (rounded.inputs, rounded.outputs) != (graph.inputs, graph.outputs):
            yield f"{rounded.name} does not take and give what {graph.name} does"
    match manifest.sampler:
        case LatentSampler():
            yield from of_latent(manifest, graphs)
        case TextSampler():
            yield from of_text(manifest, graphs)
        case CodeSampler():
            yield from of_codes(manifest, graphs)
    yield from of_calibration(manifest.calibration, graphs)


def of_calibration(calibration: Calibration, graphs: Container[str]) -> Iterator[str]:
    """What is wrong with a calibration: a way that may be used has a time for each batch size."""
    for found in calibration.measurements:
        way = f"{found.graph} by {found.engine} in {found.precision}"
        if found.graph not in graphs:
            yield f"it was calibrated with {found.graph[:80]!r}, which is no graph of it"
        if not are_sizes(found.row_buckets):
            yield f"{way} has row_buckets {found.row_buckets}; valid: rising, from 1 to {MAX_ROWS}"
        if not found.refused and (
            not found.row_buckets
            or set(found.latency_s) != set(found.row_buckets)
            or not all(0 < seconds < math.inf for seconds in found.latency_s.values())
        ):
            yield f"{way} is not refused, yet lacks the time of a batch size"


NAME_RULE = f"1 to {MAX_NAME_LENGTH} printable characters without '/'"


def is_name(name: str) -> bool:
    """Whether a name can stand in a path, a URL and a line of a log."""
    return bool(name.strip()) and len(name) <= MAX_NAME_LENGTH and name.isprintable() and "/" not in name


def of_graph(graph: GraphRecord) -> Iterator[str]:
    """What is wrong with one graph's record."""
    if not is_name(graph.name) or graph.file in (WEIGHTS, TOKENIZER):
        yield f"graph {graph.name[:80]!r} lies in {graph.file[:80]!r}"
    names = [spec.name for spec in graph.inputs], [spec.name for spec in graph.outputs]
    if not all(names) or any(len(set(side)) < len(side) for side in names):
        yield f"graph {graph.name} lacks inputs or outputs, or has two of one name"
    for spec in (*graph.inputs, *graph.outputs):
        yield from of_tensor(f"graph {graph.name}", spec)
    if not are_sizes(graph.row_buckets):
        yield f"graph {graph.name} has row_buckets {graph.row_buckets}; valid: rising, from 1 to {MAX_ROWS}"
    firsts = {spec.shape[0] for spec in graph.inputs if spec.shape}
    if graph.row_buckets and firsts != {BATCH}:
        yield f"graph {graph.name} has row_buckets, but an input whose first axis is not {BATCH!r}"
    row, most = sum(map(row_elements, graph.inputs)), max(graph.row_buckets, default=1)
    if row > MAX_ROW_ELEMENTS or (most > 1 and most * row > MAX_BATCH_ELEMENTS):
        yield f"graph {graph.name} takes {most} rows of {row} numbers at once, more than there is memory for"


def row_elements(spec: TensorSpec) -> int:
    """How many numbers a row of a tensor has, sizes without a number counted as 1."""
    return math.prod(size for size in spec.shape if isinstance(size, int))


def are_sizes(row_buckets: Sequence[int]) -> bool:
    """Whether these can be batch sizes: rising, from 1 on."""
    rising = sorted(set(row_buckets)) == list(row_buckets)
    return rising and all(1 <= size <= MAX_ROWS for size in row_buckets)


def of_tensor(where: str, spec: TensorSpec) -> Iterator[str]:
    """What is wrong with the description of one tensor."""
    if spec.dtype not in DTYPES:
        yield f"{where}: {spec.name} has dtype {spec.dtype!r}; valid: {', '.join(DTYPES)}"
    if not all(1 <= size <= MAX_ELEMENTS if isinstance(size, int) else size for size in spec.shape):
        yield f"{where}: {spec.name} has shape {spec.shape}; valid: sizes from 1, or names"
    if spec.low is not None and spec.high is not None and spec.low > spec.high:
        yield f"{where}: {spec.name} is to be from {spec.low} to {spec.high}"


def shapes(specs: Sequence[TensorSpec]) -> dict[str, tuple[int | str, ...]]:
    """Shapes by name."""
    return {spec.name: spec.shape for spec in specs}


def of_latent(manifest: Manifest, graphs: dict[str, GraphRecord]) -> Iterator[str]:
    """A latent sampler fits its graph: the latents go in, a sample comes out."""
    sampler = manifest.sampler
    assert isinstance(sampler, LatentSampler)
    graph = graphs.get(sampler.graph)
    label = sampler.condition
    wanted: dict[str, tuple[int | str, ...]] = {sampler.input: (BATCH, *sampler.latent_shape)}
    if label is not None:
        yield from of_label(label)
        wanted[label.name] = (BATCH,)
    if graph is None:
        yield f"the sampler names graph {sampler.graph!r}; valid: {', '.join(graphs)}"
    elif shapes(graph.inputs) != wanted:
        taken = f"{sampler.input!r} of shape {sampler.latent_shape}" + (
            f" and {label.name!r}" if label else ""
        )
        yield f"{graph.name} does not take the sampler's {taken}"
    elif label is not None and label not in graph.inputs:
        yield f"the sampler's {label.name!r} is not as {graph.name} takes it"
    elif shapes(graph.outputs).get(sampler.output) != (BATCH, *manifest.sample.shape):
        yield f"the sampler's {sampler.output!r} is not an output of {graph.name} of a sample's shape"


def of_likelihood(config: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the settings that a likelihood is computed with."""
    likelihood, sigma = config.get("likelihood"), config.get("sigma")
    is_positive = isinstance(sigma, int | float) and not isinstance(sigma, bool) and 0 < sigma < math.inf
    if not (likelihood is None or isinstance(likelihood, str)):
        yield "config: likelihood is not a name"
    if not (sigma is None or sigma == LEARNED or is_positive):
        yield f"config: sigma is neither {LEARNED!r} nor a number above 0"


def of_label(spec: TensorSpec) -> Iterator[str]:
    """What is wrong with the input that takes labels: they are int64, from 0 to a bound, one per row."""
    bounded = spec.low == 0 and spec.high is not None and 0 <= spec.high < MAX_ELEMENTS
    if spec.dtype != "int64" or spec.shape != (BATCH,) or not bounded:
        yield f"the sampler's {spec.name!r} is no label: int64, one per row, from 0 to a bound"


def of_text(manifest: Manifest, graphs: dict[str, GraphRecord]) -> Iterator[str]:
    """A text sampler fits its graphs: tokens, lengths and a cache of its sizes go in, logits come out."""
    sampler = manifest.sampler
    assert isinstance(sampler, TextSampler)
    derived = dict.fromkeys(standard(sampler), "f32")
    derived |= {found.graph: found.cache_precision for found in sampler.precisions}
    if unknown := sorted(set(derived.values()) - set(CACHE_DTYPES)):
        yield f"the sampler has a cache in {unknown[0][:80]!r}; valid: {', '.join(CACHE_DTYPES)}"
        return
    if missing := sorted({sampler.graph, sampler.score_graph, *derived} - set(graphs)):
        yield f"the sampler names graph {missing[0]!r}; valid: {', '.join(graphs)}"
        return
    vocab_size = sampler.vocab_size
    yield from of_derived(graphs, sampler, derived)
    if manifest.sample.shape != (sampler.block_size,):
        yield "the sampler's sample is not one block of tokens"
    if not all(0 <= token < vocab_size for token in (sampler.start_token, *sampler.end_tokens)):
        yield f"the sampler starts or ends with tokens that are not below {vocab_size}"
    yield from of_tokens(sampler, graphs[sampler.graph])
    yield from of_steps(sampler, graphs)
    if shapes(graphs[sampler.score_graph].outputs) != {"logits": (BATCH, "time", vocab_size)}:
        yield f"{sampler.score_graph} does not give logits over {vocab_size} tokens"


def standard(sampler: TokenSampler) -> set[str]:
    """The next-token graph in standard operators, if there is one."""
    return {sampler.standard_graph} - {""}


def of_derived(
    graphs: dict[str, GraphRecord], sampler: TokenSampler, derived: Mapping[str, str]
) -> Iterator[str]:
    """Graphs made of the next-token graph take and give what it does, with the cache in the precision that
    `derived` says, and a standard one is standard."""
    plain = graphs[sampler.graph]
    for name, precision in sorted(derived.items()):
        wanted = [
            tuple(
                replace(spec, dtype=CACHE_DTYPES[precision])
                if spec.name.startswith(("past_", "present_"))
                else spec
                for spec in side
            )
            for side in (plain.inputs, plain.outputs)
        ]
        if [graphs[name].inputs, graphs[name].outputs] != wanted:
            yield f"{name} does not take and give what {plain.name} does"
    for name in standard(sampler):
        if others := sorted(set(graphs[name].operator_sets) - {ONNX}):
            yield f"{name} is to be in standard operators, and has some of {others[0]}"


def of_codes(manifest: Manifest, graphs: dict[str, GraphRecord]) -> Iterator[str]:
    """A sampler of codes fits its graphs: as many tokens as a grid has places, which decode to a sample."""
    sampler = manifest.sampler
    assert isinstance(sampler, CodeSampler)
    if missing := sorted({sampler.graph, sampler.decode_graph, *standard(sampler)} - set(graphs)):
        yield f"the sampler names graph {missing[0]!r}; valid: {', '.join(graphs)}"
        return
    yield from of_derived(graphs, sampler, dict.fromkeys(standard(sampler), "f32"))
    yield from of_tokens(sampler, graphs[sampler.graph])
    yield from of_steps(sampler, graphs)
    if sampler.condition is not None:
        yield from of_label(sampler.condition)
    if math.prod(sampler.code_shape) != sampler.block_size:
        yield f"the sampler's grid {sampler.code_shape} is not one block of {sampler.block_size} tokens"
    if sampler.codes < 1 or sampler.codes + (sampler.classes or 1) != sampler.vocab_size:
        yield f"the sampler's {sampler.codes} codes and first tokens are not {sampler.vocab_size} tokens"
    decode = graphs[sampler.decode_graph]
    if shapes(decode.inputs) != {sampler.input: (BATCH, *sampler.code_shape)}:
        yield f"{decode.name} does not take the sampler's {sampler.input!r} of shape {sampler.code_shape}"
    elif decode.inputs[0].dtype != "int64":
        yield f"{decode.name} takes {decode.inputs[0].dtype}; valid: int64"
    if shapes(decode.outputs).get(sampler.output) != (BATCH, *manifest.sample.shape):
        yield f"the sampler's {sampler.output!r} is not an output of {decode.name} of a sample's shape"


def of_tokens(sampler: TokenSampler, graph: GraphRecord) -> Iterator[str]:
    """A next-token graph fits: tokens, lengths and a cache of the sampler's sizes go in, logits come out."""
    vocab_size, layers = sampler.vocab_size, sampler.layers
    cache = (BATCH, sampler.kv_heads, sampler.block_size, sampler.head_dim)
    if min(vocab_size, layers, *cache[1:]) < 1:
        yield "the sampler has sizes below 1"
        return
    pasts = [name for name in shapes(graph.inputs) if name.startswith("past_")]
    wanted: dict[str, tuple[int | str, ...]] = {
        "tokens": (BATCH, "time"),
        "seqlens_k": (BATCH,),
        "total_sequence_length": (),
        **dict.fromkeys(pasts, cache),
    }
    if len(pasts) != 2 * layers or shapes(graph.inputs) != wanted:
        yield f"{graph.name} does not take the sampler's cache: {layers} layers of shape {cache[1:]}"
    logits: dict[str, tuple[int | str, ...]] = {"logits": (BATCH, vocab_size)}
    logits |= {name.replace("past_", "present_"): cache for name in pasts}
    if shapes(graph.outputs) != logits:
        yield f"{graph.name} does not give logits over {vocab_size} tokens and the cache"


def of_steps(sampler: TokenSampler, graphs: Mapping[str, GraphRecord]) -> Iterator[str]:
    """Each cached step that may be used has batch sizes: a cache is made for those."""
    lower = sampler.precisions if isinstance(sampler, TextSampler) else ()
    usable = [found.graph for found in lower if not found.refused]
    for name in (sampler.graph, *sorted(standard(sampler)), *usable):
        if not graphs[name].row_buckets:
            yield f"{name} has no row_buckets"
