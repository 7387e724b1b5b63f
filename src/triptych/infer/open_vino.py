"""The OpenVINO engine: float32, or bfloat16 where the processor computes with it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from triptych.bundle.manifest import TensorSpec
from triptych.bundle.reader import Bundle
from triptych.bundle.wire import check_order, in_memory
from triptych.errors import BundleError, BundleRefused
from triptych.infer.backend import TokenDecoder
from triptych.infer.declared import Found, check_declared
from triptych.infer.signal_stack import signal_stack_kept

Array = np.ndarray

DEVICE = "CPU"


def computes_bf16() -> bool:
    """Whether OpenVINO has bfloat16 kernels for this processor (AVX-512 BF16, AMX, or their like)."""
    import openvino

    return "BF16" in openvino.Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVinoBackend:
    """Runs a bundle's row graphs on the CPU with `threads` threads.

    In bfloat16 the inputs of products are rounded to 8 bits of precision; sums, what follows the last
    product, and the inputs and outputs of the graph are float32.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, threads: int, precision: str = "f32") -> None:
        import openvino

        self._bundle, self._core = bundle, openvino.Core()
        self._records = {graph.name: graph for graph in bundle.manifest.graphs}
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the workers of one machine would all be pinned to the same cores
        }
        self._models: dict[str, tuple[Any, SimpleQueue[Any]]] = {}
        self._lock = Lock()

    def open(self, graph: str) -> None:
        """Compile a graph."""
        self._model(graph)

    def row_buckets(self, graph: str) -> tuple[int, ...]:
        """The batch sizes that the manifest names."""
        return self._records[graph].row_buckets

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that were checked before."""
        compiled, idle = self._model(graph)
        try:
            request = idle.get_nowait()
        except Empty:  # several threads run this graph at once
            request = compiled.create_infer_request()
        try:
            request.infer(
                {name: plain(array) for name, array in inputs.items()}, share_inputs=True, share_outputs=True
            )
            outputs = {
                spec.name: request.get_tensor(spec.name).data.copy()  # the next run writes over it
                for spec in self._records[graph].outputs
            }
        except Exception as error:
            raise BundleError(f"OpenVINO cannot run it ({error})", where=f"graph {graph}") from error
        idle.put(request)
        return outputs

    def decoder(self, graph: str, slots: int) -> TokenDecoder:
        """Not here: the cached next-token graph has an operator that OpenVINO lacks."""
        raise BundleError("OpenVINO has no token decoder", where=self._bundle.manifest.name)

    def close(self) -> None:
        """Let go of compiled graphs."""
        with self._lock:
            self._models.clear()

    def _model(self, graph: str) -> tuple[Any, SimpleQueue[Any]]:
        """A graph compiled, and its requests that are not in use."""
        if (found := self._models.get(graph)) is not None:  # on every call: no lock for what is open
            return found
        with self._lock:
            if graph not in self._models:
                self._models[graph] = self._compile(graph), SimpleQueue()
            return self._models[graph]

    def _compile(self, graph: str) -> Any:
        """A graph over the very bytes that were checked: OpenVINO itself opens no file."""
        record, weights = self._records[graph], self._bundle.weights
        file = str(self._bundle.folder / record.file)
        try:
            check_order(self._bundle.graphs[graph])  # it follows nodes in a circle until memory is full
            data = in_memory(self._bundle.graphs[graph], weights.address)
            with signal_stack_kept():
                model = self._core.read_model(io.BytesIO(data))
                check_declared(file, record.inputs, declared(record.inputs, model.inputs))
                check_declared(file, record.outputs, declared(record.outputs, model.outputs))
                return self._core.compile_model(model, DEVICE, self._settings)
        except BundleRefused:
            raise
        except Exception as error:
            raise BundleRefused(f"OpenVINO cannot open it ({error})", where=file) from error
        finally:
            weights.release()


def plain(array: Array) -> Array:
    """The same values under numpy's usual type of that name: onnxruntime's int64 is C's `long long`, which
    OpenVINO does not know.
    """
    return array if array.dtype.kind == "f" else array.view(np.dtype(array.dtype.name))


def declared(specs: Sequence[TensorSpec], ports: Sequence[Any]) -> list[Found]:
    """A model's inputs or outputs; of a port's several names, that of `specs` if it is one of them."""
    wanted = [spec.name for spec in specs] + [""] * len(ports)
    return [
        Found(
            name if name in port.names else port.any_name,
            port.element_type.to_dtype().name,
            [size.get_length() if size.is_static else None for size in port.partial_shape],
        )
        for name, port in zip(wanted, ports, strict=False)
    ]
