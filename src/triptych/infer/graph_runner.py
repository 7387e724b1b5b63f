"""The graphs of a loaded bundle, run in batches: what every way of drawing samples stands on."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from triptych.bundle import reader
from triptych.bundle.manifest import GraphRecord, Manifest, TextSampler, TokenSampler
from triptych.errors import NotFoundError, nearest
from triptych.infer.backend import Backend
from triptych.infer.inputs import TOKENS, check, check_tokens
from triptych.infer.rows import cheap_padding, cut, split

Array = np.ndarray


class GraphRunner:
    """Runs the graphs of one bundle.

    `run` and `run_rows` may be called from several threads at once.
    """

    def __init__(self, bundle: reader.Bundle, backend: Backend, token_graph: str | None = None) -> None:
        """`token_graph` is the one of several next-token graphs to use; the plain one by default."""
        self.manifest: Manifest = bundle.manifest
        self.backend = backend
        sampler = bundle.manifest.sampler
        self.token_graph = token_graph or sampler.graph
        self._folder, self._tokenizer_json, self._weights = bundle.folder, bundle.tokenizer, bundle.weights
        self._graphs = {graph.name: graph for graph in bundle.manifest.graphs}

    def open(self) -> None:
        """Get every graph ready, so that no first call is slow.

        Raises `BundleRefused` if one cannot be opened.
        """
        sampler = self.manifest.sampler
        unused = {graph.int8_graph for graph in self._graphs.values()}
        if isinstance(sampler, TokenSampler):
            unused = {sampler.graph, sampler.standard_graph}
        if isinstance(sampler, TextSampler):
            unused |= {found.graph for found in sampler.precisions}
        for graph in self._graphs.keys() - (unused - {self.token_graph}):
            self.backend.open(graph)

    def graph(self, name: str) -> GraphRecord:
        """What the manifest says of a graph. Raises `NotFoundError`."""
        if not isinstance(name, str) or name not in self._graphs:  # a list, say, cannot be looked up
            valid, remedy = ", ".join(self._graphs), nearest(str(name), self._graphs)
            raise NotFoundError(
                f"has no graph {name!r}", where=self.manifest.name, valid=valid, remedy=remedy
            )
        return self._graphs[name]

    def check(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs of a graph as arrays of the right dtype. Raises `NotFoundError`, `InputError`."""
        found = check(self.graph(graph), inputs)
        if isinstance(self.manifest.sampler, TokenSampler) and TOKENS in found:
            check_tokens(graph, found, self.manifest.sampler.block_size)
        return found

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run a graph: named arrays in, named arrays out. Raises `NotFoundError`, `InputError`.

        >>> engine.run("decode", {"z": z})["x"]  # doctest: +SKIP
        """
        return self.run_rows(graph, self.check(graph, inputs))

    def run_rows(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that `check` returned, in batches of its backend's `row_buckets`.

        A row's outputs depend on that row's inputs alone: rows of several requests may be stacked.
        """
        buckets = self.backend.row_buckets(self.graph(graph).name)
        rows = next((len(array) for array in inputs.values() if array.ndim), 0) if buckets else 0
        if not buckets or rows in buckets:
            return self.backend.run(graph, inputs)
        parts = [
            self.backend.run(graph, {name: cut(array, held, size) for name, array in inputs.items()})
            for held, size in split(rows, buckets, cheap_padding(rows))
        ]
        if len(parts) == 1:
            return {name: array[:rows] for name, array in parts[0].items()}
        return {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}

    def tensor(self, name: str) -> Array:
        """A tensor of the bundle, not writable. Raises `NotFoundError`."""
        extents = self._weights.extents
        if not isinstance(name, str) or name not in extents:
            raise NotFoundError(
                f"has no tensor {name!r}", where=self.manifest.name, remedy=nearest(str(name), extents)
            )
        return self._weights.array(extents[name])

    def close(self) -> None:
        """Let go of sessions and mapped files."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
