"""Ways to compute a graph, an engine at a precision each; and the backend that follows them."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import NamedTuple

import numpy as np

from triptych.bundle.manifest import GraphRecord
from triptych.bundle.reader import Bundle
from triptych.infer import machine
from triptych.infer.backend import Backend, TokenDecoder

Array = np.ndarray


class Way(NamedTuple):
    """An engine at a precision."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"


class Choice(NamedTuple):
    """How a graph is computed, and the batch sizes at which that keeps a row's bytes."""

    way: Way
    row_buckets: tuple[int, ...]


PLAIN = Way("onnxruntime", "f32")
INT8 = "int8"
WAYS = (
    PLAIN,
    Way("onnxruntime", INT8),
    Way("openvino", "f32"),
    Way("openvino", "bf16"),
    Way("openvino", INT8),
)


def obstacle(way: Way) -> str:
    """Why this machine cannot compute so; empty if it can."""
    if way.engine == PLAIN.engine:
        return ""
    if way.engine not in machine.versions():
        return "OpenVINO is not installed; pip install 'triptych[openvino]' does that"
    from triptych.infer.open_vino import computes_bf16

    if way.precision == "bf16" and not computes_bf16():
        return f"this processor ({machine.processor()}) does not compute in bfloat16"
    return ""


def computes(way: Way, graph: GraphRecord) -> bool:
    """Whether a graph can be computed so: int8 takes a graph of its own."""
    return way.precision != INT8 or bool(graph.int8_graph)


def open_backend(bundle: Bundle, way: Way, threads: int, *, share_weights: bool = False) -> Backend:
    """The library that computes so; OpenVINO packs weights of its own all the same."""
    if way.engine == PLAIN.engine:
        from triptych.infer.onnx_runtime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, threads, share_weights=share_weights)
    from triptych.infer.open_vino import OpenVinoBackend

    return OpenVinoBackend(bundle, threads, way.precision)


class ChosenBackend:
    """Computes each graph as chosen, and plainly where nothing was: one way for all batch sizes of a graph.

    A sample of 100 runs in other batches than a sample of 7; were each batch size computed by the engine
    that is fastest at it, number 3 of both would have other bytes.
    """

    def __init__(
        self, bundle: Bundle, threads: int, choices: Mapping[str, Choice], *, share_weights: bool = False
    ) -> None:
        self._bundle, self._threads, self._share_weights = bundle, threads, share_weights
        plain = {graph.name: Choice(PLAIN, graph.row_buckets) for graph in bundle.manifest.graphs}
        self._rounded = {graph.name: graph.int8_graph for graph in bundle.manifest.graphs}
        self.choices = {**plain, **choices}
        self._backends: dict[Way, Backend] = {}
        self._lock = Lock()

    @property
    def name(self) -> str:
        """The ways that are in use."""
        asked_for = self.choices.keys() - set(self._rounded.values())
        return ", ".join(sorted({str(self.choices[graph].way) for graph in asked_for}))

    def open(self, graph: str) -> None:
        """Get a graph ready to run."""
        self._backend(graph).open(self._file(graph))

    def row_buckets(self, graph: str) -> tuple[int, ...]:
        """The batch sizes at which a row's bytes do not depend on its neighbours."""
        return self.choices[graph].row_buckets

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that were checked before."""
        return self._backend(graph).run(self._file(graph), inputs)

    def decoder(self, graph: str, slots: int) -> TokenDecoder:
        """A next-token graph with a new cache of `slots` rows."""
        return self._backend(graph).decoder(graph, slots)

    def close(self) -> None:
        """Let go of everything that is open."""
        with self._lock:
            for backend in self._backends.values():
                backend.close()
            self._backends.clear()

    def _file(self, graph: str) -> str:
        """The graph to run for `graph`: in int8 one of its own."""
        return self._rounded[graph] if self.choices[graph].way.precision == INT8 else graph

    def _backend(self, graph: str) -> Backend:
        """The library that computes a graph."""
        way = self.choices[graph].way
        if (found := self._backends.get(way)) is not None:  # on every call: no lock for what is open
            return found
        with self._lock:
            if way not in self._backends:
                self._backends[way] = open_backend(
                    self._bundle, way, self._threads, share_weights=self._share_weights
                )
            return self._backends[way]
