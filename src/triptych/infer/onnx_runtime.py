"""The onnxruntime engine: one session per graph, opened on first use, over the weights the reader mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime

from triptych.bundle.manifest import GraphRecord, TensorSpec, TextSampler
from triptych.bundle.reader import Bundle
from triptych.bundle.wire import external_tensors
from triptych.errors import BundleError, BundleRefused
from triptych.infer.rows import pad, split

Array = np.ndarray

FATAL_ONLY = 4  # its errors come as exceptions
MAX_PADDING = 64  # a token step reads every weight, so one larger batch costs less than two
TYPES = {  # numpy's names to onnxruntime's
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "float16": "tensor(float16)",
    **{name: f"tensor({name})" for name in ("int64", "int32", "int16", "int8", "uint8", "bool")},
}


class OnnxRuntimeBackend:
    """Runs a bundle's graphs on the CPU with `threads` threads, none of which spins while it waits."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle, self._threads = bundle, threads
        self._records = {graph.name: graph for graph in bundle.manifest.graphs}
        self._sessions: dict[str, Any] = {}
        self._lock = Lock()

    def open(self, graph: str) -> None:
        """Open the session of a graph."""
        self.session(graph)

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that were checked before."""
        with named(graph):
            outputs = self.session(graph).run(None, dict(inputs))
        names = (spec.name for spec in self._records[graph].outputs)
        return dict(zip(names, outputs, strict=True))

    def decoder(self, slots: int) -> OnnxRuntimeDecoder:
        """A new cache of `slots` rows."""
        sampler = self._bundle.manifest.sampler
        assert isinstance(sampler, TextSampler)  # Engine refuses others
        return OnnxRuntimeDecoder(self.session(sampler.graph), self._records[sampler.graph], sampler, slots)

    def close(self) -> None:
        """Let go of sessions and mapped files."""
        with self._lock:
            self._sessions.clear()

    def session(self, graph: str) -> Any:
        """The session of a graph."""
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        """A session over the very bytes that were checked: onnxruntime itself opens no file."""
        record, weights = self._records[graph], self._bundle.weights
        by_range = {(extent.offset, extent.size_bytes): extent for extent in weights.extents.values()}
        options, file = session_options(self._threads), str(self._bundle.folder / record.file)
        try:
            held = {
                tensor.name: weights.array(by_range[tensor.offset, tensor.size_bytes])
                for tensor in external_tensors(self._bundle.graphs[graph])
            }
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
            options.add_external_initializers(list(held), values)
            session = onnxruntime.InferenceSession(
                self._bundle.graphs[graph], options, providers=["CPUExecutionProvider"]
            )
        except BundleRefused:
            raise
        except Exception as error:
            raise BundleRefused(f"onnxruntime cannot open it ({error})", where=file) from error
        check_declared(file, record.inputs, session.get_inputs())
        check_declared(file, record.outputs, session.get_outputs())
        weights.release()
        return session


def check_declared(file: str, specs: Sequence[TensorSpec], found: Sequence[Any]) -> None:
    """Refuse a graph whose inputs or outputs are not those the manifest declares."""
    if [spec.name for spec in specs] != [value.name for value in found]:
        names = ", ".join(value.name for value in found)
        raise BundleRefused(
            f"it has {names}", where=file, valid=f"the manifest's {', '.join(spec.name for spec in specs)}"
        )
    for spec, value in zip(specs, found, strict=True):
        sizes = zip(spec.shape, value.shape, strict=False)
        fits = len(spec.shape) == len(value.shape) and not any(
            isinstance(size, int) and isinstance(other, int) and size != other for size, other in sizes
        )
        if TYPES.get(spec.dtype) != value.type or not fits:
            raise BundleRefused(
                f"{spec.name} is {value.type} of shape {value.shape}",
                where=file,
                valid=f"the manifest's {spec.dtype} of shape {spec.shape}",
            )


@contextmanager
def named(graph: str) -> Iterator[None]:
    """Give onnxruntime's errors, which share no base class, the graph's name."""
    try:
        yield
    except Exception as error:
        raise BundleError(f"onnxruntime cannot run it ({error})", where=f"graph {graph}") from error


def session_options(threads: int) -> Any:
    """Options of every session: `threads` threads that sleep while they wait, so that they starve nobody."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


class OnnxRuntimeDecoder:
    """The cached next-token graph over one block of memory per layer: each step writes into it in place.

    Keys and values are (rows, kv_heads, block_size, head_dim); past and present of the graph are bound to the
    same bytes, so a step copies nothing.
    """

    def __init__(self, session: Any, record: GraphRecord, sampler: TextSampler, slots: int) -> None:
        self.slots = slots
        self._session, self._graph, self._buckets = session, record.name, record.row_buckets
        rows = max(held.start + size for held, size in split(slots, self._buckets, MAX_PADDING))
        shape = (rows, sampler.kv_heads, sampler.block_size, sampler.head_dim)
        past = [spec.name for spec in record.inputs if spec.name.startswith("past_")]
        self._memory = {name: np.zeros(shape, np.float32) for name in past}
        self._vocab_size, self._block_size = sampler.vocab_size, sampler.block_size

    def prefill(self, slot: int, tokens: Sequence[int]) -> Array:
        """Read `tokens` from the beginning into row `slot`; returns the next token's logits, (V,)."""
        logits: Array = self._run(
            np.array([tokens], np.int64), np.array([len(tokens) - 1]), slot, len(tokens)
        )[0]
        return logits

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Array:
        """Read one more token into each of rows 0, 1, ...; returns (B, V)."""
        parts = []
        for held, size in split(len(tokens), self._buckets, MAX_PADDING):
            read = pad(np.array(tokens[held], np.int64)[:, None], size)
            last = pad(np.array(lengths[held], np.int64), size)
            parts.append(self._run(read, last, held.start, self._block_size)[: held.stop - held.start])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def move(self, source: int, destination: int) -> None:
        """Copy row `source` over row `destination`."""
        for memory in self._memory.values():
            memory[destination] = memory[source]

    def _run(self, tokens: Array, last: Array, start: int, in_use: int) -> Array:
        """Logits after `tokens` (B, T), read into rows from `start` on; `last` are the positions of the last
        of them.

        `in_use` tells the graph a prompt (the number of tokens) from a step (anything more).
        """
        rows = slice(start, start + len(tokens))
        logits = np.empty((len(tokens), self._vocab_size), np.float32)
        cache = {name: memory[rows] for name, memory in self._memory.items()}
        inputs = {
            "tokens": tokens,
            "seqlens_k": last.astype(np.int32),
            "total_sequence_length": np.array(in_use, np.int32),
            **cache,
        }
        outputs = {"logits": logits} | {
            name.replace("past_", "present_"): part for name, part in cache.items()
        }
        binding = (
            self._session.io_binding()
        )  # holds addresses, not arrays: `inputs` must live until the run is over
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        with named(self._graph):
            self._session.run_with_iobinding(binding)
        return logits
