"""The manifest: everything a reader must know about a bundle, as one JSON document.

A bundle is a folder. `manifest.json` names every other file with its size and SHA-256, and carries a digest
of itself, so every byte of the folder is covered. A digest is not a signature: it detects damage, not malice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
README = "README.md"
VERSION_DIGITS = 12
SAMPLES_PICTURE, SAMPLES_TEXT = "samples.png", "samples.txt"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every part of the manifest: immutable, and unknown fields are errors."""


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output of a graph.

    `shape` holds sizes, or names for sizes that vary ("batch", "time"). `low` and `high` bound the values
    where a bound is known (images: 0 and 1).
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    low: float | None = None
    high: float | None = None


class Parity(Record, frozen=True, kw_only=True):
    """How far the exported graph is from torch, measured at export on `examples` rows."""

    max_abs_error: float
    max_ulp_error: float
    tolerance: float
    examples: int


class GraphRecord(Record, frozen=True, kw_only=True, omit_defaults=True):
    """One ONNX graph: `name` is what a caller runs, `file` is where it lies.

    `row_buckets` are the batch sizes at which a row's bytes do not depend on its neighbours: batches are
    padded up to one of them. `operator_sets` maps operator domain to version; a domain other than "" or
    "ai.onnx" means that only the engines in `engines` can read this graph. `int8_graph`, where there is one,
    is the same graph with its products in eight bits.
    """

    name: str
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operator_sets: dict[str, int]
    engines: tuple[str, ...]
    row_buckets: tuple[int, ...]
    parity: Parity
    int8_graph: str = ""


class Quality(Record, frozen=True, kw_only=True):
    """What a lower precision changes, in a unit that means something to the model, and what is allowed.

    `measure` is "kl_nats_per_token", the divergence of a text's next token from that in float32, in nats;
    "kl_nats", the divergence of the likelihood p(x|z) or the posterior q(z|x) from that in float32, in nats
    per example; "frechet_share", the Fréchet distance of a GAN's samples from those in float32, as a share of
    that between two draws of the latter; or "rms_error", the root mean square error of outputs, as a part of
    their range.
    """

    measure: str
    value: float
    limit: float


class Measurement(Record, frozen=True, kw_only=True):
    """What one engine at one precision did with one graph on one machine.

    `max_abs_error` is from onnxruntime in float32 there. `row_buckets` are the batch sizes at which this
    engine gives a row the same bytes in any company, `latency_s` the median seconds of a batch of each.
    `refused` says why it may not be used; empty if it may.
    """

    graph: str
    engine: str
    precision: str
    row_buckets: tuple[int, ...] = ()
    latency_s: dict[int, float] = {}
    max_abs_error: float = 0.0
    quality: Quality | None = None
    refused: str = ""


class Calibration(Record, frozen=True, kw_only=True):
    """What the engines did with each graph on one machine: `processor`, with these versions of the engines
    and this many threads."""

    processor: str = ""
    versions: dict[str, str] = {}
    threads: int = 0
    measurements: tuple[Measurement, ...] = ()


class LatentSampler(Record, frozen=True, kw_only=True, omit_defaults=True, tag="latent", tag_field="kind"):
    """Draw `input` from N(0, I) of shape `latent_shape`, run `graph`, read `output`: VAEs and GANs.

    `condition` is the graph's other input in a conditional model: the label of each row, int64 from 0 on.
    """

    graph: str
    input: str
    output: str
    latent_shape: tuple[int, ...]
    condition: TensorSpec | None = None

    @property
    def classes(self) -> int | None:
        """How many labels there are; None for a model without a condition."""
        return None if self.condition is None else int(self.condition.high or 0) + 1


class TextPrecision(Record, frozen=True, kw_only=True):
    """A next-token graph at a lower precision, with the inputs and outputs of the plain one.

    `precision` is that of the weights, `cache_precision` that of the cache: f32, f16 or int8. `refused` says
    why it may not be used; empty if it may.
    """

    precision: str
    graph: str
    cache_precision: str = "f32"
    quality: Quality | None = None
    refused: str = ""


class TextSampler(Record, frozen=True, kw_only=True, omit_defaults=True, tag="text", tag_field="kind"):
    """Prefill a prompt, then draw token after token: Transformers.

    `graph` is the cached next-token graph, `standard_graph`, where there is one, the same in operators of
    ONNX alone, and `score_graph` the uncached one (tokens -> logits at every position). The cache has, for
    each of `layers`, a key and a value of shape (batch, kv_heads, block_size, head_dim).

    A text without a prompt goes on from `start_token`; one that reaches a token of `end_tokens` is finished.
    A sample, which is a block of the stream of tokens, goes on after them.
    """

    graph: str
    score_graph: str
    vocab_size: int
    block_size: int
    layers: int
    kv_heads: int
    head_dim: int
    start_token: int = 0
    end_tokens: tuple[int, ...] = ()
    standard_graph: str = ""
    precisions: tuple[TextPrecision, ...] = ()

    @property
    def classes(self) -> None:
        """Text takes no label."""


class CodeSampler(Record, frozen=True, kw_only=True, omit_defaults=True, tag="codes", tag_field="kind"):
    """Draw a grid of codes, token after token, then decode it: VQ-VAEs.

    `graph` is the cached next-token graph, its cache and its `standard_graph` as in a `TextSampler`. Tokens
    below `codes` are codes. Row after row of a grid of `code_shape` follows the token `codes`, or `codes` +
    label in a conditional model, whose labels `condition` describes. `decode_graph` maps `input`, int64 of
    shape (batch, *code_shape), to `output`, a sample.
    """

    graph: str
    vocab_size: int
    block_size: int
    layers: int
    kv_heads: int
    head_dim: int
    codes: int
    code_shape: tuple[int, ...]
    decode_graph: str
    input: str
    output: str
    condition: TensorSpec | None = None
    standard_graph: str = ""

    @property
    def classes(self) -> int | None:
        """How many labels there are; None for a model without a condition."""
        return None if self.condition is None else int(self.condition.high or 0) + 1


TokenSampler = TextSampler | CodeSampler  # those with a cached next-token graph
Sampler = LatentSampler | TokenSampler


class FileRecord(Record, frozen=True, kw_only=True):
    """A file of the bundle other than the manifest."""

    size_bytes: int
    sha256: str


class Manifest(Record, frozen=True, kw_only=True):
    """The whole manifest.

    `version` names the content: the first 12 hex digits of the weights' and graphs' digest.
    """

    format_version: int
    name: str
    family: str
    version: str
    config: dict[str, Any]
    sample: TensorSpec
    sampler: Sampler
    graphs: tuple[GraphRecord, ...]
    files: dict[str, FileRecord]
    training: dict[str, Any]
    created_with: dict[str, str]
    calibration: Calibration = Calibration()
    digest: str = ""


def version_of(graphs: Iterable[GraphRecord], files: Mapping[str, FileRecord]) -> str:
    """The version of a bundle: what it computes, and nothing else of it, in 12 hex digits."""
    digests = [files[name].sha256 for name in (WEIGHTS, *(graph.file for graph in graphs))]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:VERSION_DIGITS]
