"""The onnxruntime engine: one session per graph, opened on first use, over the weights the reader mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime

from triptych.bundle.manifest import TokenSampler
from triptych.bundle.reader import Bundle
from triptych.bundle.wire import external_tensors
from triptych.errors import BundleRefused
from triptych.infer import packed_weights
from triptych.infer.declared import Found, check_declared
from triptych.infer.onnx_runtime_decoder import OnnxRuntimeDecoder, not_run

Array = np.ndarray

PROVIDERS = ("CPUExecutionProvider",)
FATAL_ONLY = 4  # its errors come as exceptions
TYPES = {  # onnxruntime's names to numpy's
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    **{f"tensor({name})": name for name in ("int64", "int32", "int16", "int8", "uint8", "bool")},
}


class OnnxRuntimeBackend:
    """Runs a bundle's graphs on the CPU with `threads` threads, none of which spins while it waits."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, threads: int, *, share_weights: bool = False) -> None:
        """`share_weights` maps packed weights from the user's cache, instead of packing them here."""
        self._bundle, self._threads, self._share_weights = bundle, threads, share_weights
        self._records = {graph.name: graph for graph in bundle.manifest.graphs}
        self._sessions: dict[str, Any] = {}
        self._lock = Lock()

    def open(self, graph: str) -> None:
        """Open the session of a graph."""
        self.session(graph)

    def row_buckets(self, graph: str) -> tuple[int, ...]:
        """The batch sizes that the manifest names."""
        return self._records[graph].row_buckets

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that were checked before."""
        session = self.session(graph)
        try:
            outputs = session.run(None, inputs)
        except Exception as error:
            raise not_run(graph, error) from error
        return {spec.name: output for spec, output in zip(self._records[graph].outputs, outputs, strict=True)}

    def decoder(self, graph: str, slots: int) -> OnnxRuntimeDecoder:
        """A next-token graph with a new cache of `slots` rows."""
        sampler = self._bundle.manifest.sampler
        assert isinstance(sampler, TokenSampler)  # Engine refuses others
        return OnnxRuntimeDecoder(self.session(graph), self._records[graph], sampler, slots)

    def close(self) -> None:
        """Let go of sessions and mapped files."""
        with self._lock:
            self._sessions.clear()

    def session(self, graph: str) -> Any:
        """The session of a graph."""
        if (found := self._sessions.get(graph)) is not None:  # on every call: no lock for what is open
            return found
        with self._lock:
            if graph not in self._sessions:
                self._sessions[graph] = self._open(graph)
            return self._sessions[graph]

    def _open(self, graph: str) -> Any:
        """A session that has what the manifest declares."""
        record = self._records[graph]
        file = str(self._bundle.folder / record.file)
        try:
            session = self._mapped(graph) if self._share_weights else None
            session = session or self._packing(graph, session_options(self._threads))
        except BundleRefused:
            raise
        except Exception as error:
            raise BundleRefused(f"onnxruntime cannot open it ({error})", where=file) from error
        finally:
            self._bundle.weights.release()
        check_declared(file, record.inputs, declared(session.get_inputs()))
        check_declared(file, record.outputs, declared(session.get_outputs()))
        return session

    def _packing(self, graph: str, options: Any) -> Any:
        """A session over the very bytes that were checked, with a packed copy of its own: onnxruntime itself
        opens no file.
        """
        weights = self._bundle.weights
        by_range = {(extent.offset, extent.size_bytes): extent for extent in weights.extents.values()}
        held = {
            tensor.name: weights.array(by_range[tensor.offset, tensor.size_bytes])
            for tensor in external_tensors(self._bundle.graphs[graph])
        }
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in held.values()]
        options.add_external_initializers(list(held), values)
        return opened(self._bundle.graphs[graph], options)

    def _mapped(self, graph: str) -> Any:
        """A session over packed weights that other processes map too; None if there are none to be had."""
        return packed_weights.shared(
            self._bundle,
            graph,
            lambda folder: self._packing(graph, writing_options(folder, self._threads)),
            lambda found: opened(found.graph, mapping_options(found.folder, self._threads)),
        )


def opened(graph: bytes, options: Any) -> Any:
    """A session. Without its fallback, which would try again in vain and print to standard output first."""
    return onnxruntime.InferenceSession(graph, options, providers=PROVIDERS, enable_fallback=0)


def declared(values: Sequence[Any]) -> list[Found]:
    """A session's inputs or outputs."""
    return [Found(value.name, TYPES.get(value.type, value.type), value.shape) for value in values]


def session_options(threads: int) -> Any:
    """Options of every session: `threads` threads that sleep while they wait, so that they starve nobody."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def writing_options(folder: Path, threads: int) -> Any:
    """Options of a session that writes its optimised graph and its packed weights into `folder`."""
    options = session_options(threads)
    options.optimized_model_filepath = str(folder / packed_weights.GRAPH)
    file_name = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(file_name, packed_weights.WEIGHTS)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    return options


def mapping_options(folder: Path, threads: int) -> Any:
    """Options of a session over what such a session wrote: the graph is optimised already."""
    options = session_options(threads)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return options
