"""Token steps with onnxruntime: the cache in place, and what a step is bound to kept from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from triptych.bundle.manifest import GraphRecord, TokenSampler
from triptych.errors import BundleError
from triptych.infer.rows import pad, split

Array = np.ndarray

MAX_PADDING = 64  # a token step reads every weight, so one larger batch costs less than two


@contextmanager
def named(graph: str) -> Iterator[None]:
    """Give onnxruntime's errors, which share no base class, the graph's name."""
    try:
        yield
    except Exception as error:
        raise not_run(graph, error) from error


def not_run(graph: str, error: Exception) -> BundleError:
    """What an error of onnxruntime becomes."""
    return BundleError(f"onnxruntime cannot run it ({error})", where=f"graph {graph}")


class Reading:
    """One way to read tokens: (rows, time) of them into rows of the cache from `start` on.

    Binding takes as long as a small model takes to compute, so it is done once; a reading is used again by
    writing into its arrays. Past and present of the graph are bound to the same bytes, so nothing is copied.
    """

    def __init__(
        self, session: Any, memory: dict[str, Array], start: int, shape: tuple[int, int], vocab_size: int
    ) -> None:
        rows, _ = shape
        self.tokens, self.last = np.zeros(shape, np.int64), np.zeros(rows, np.int32)
        self.in_use = np.zeros((), np.int32)
        self.logits = np.empty((rows, vocab_size), np.float32)
        cache = {name: held[start : start + rows] for name, held in memory.items()}
        lengths: dict[str, Array] = {"seqlens_k": self.last, "total_sequence_length": self.in_use}
        self._inputs: dict[str, Array] = {"tokens": self.tokens, **lengths, **cache}
        present = {name.replace("past_", "present_"): part for name, part in cache.items()}
        self._outputs: dict[str, Array] = {"logits": self.logits, **present}
        self._session, self._binding = session, session.io_binding()
        for name, array in self._inputs.items():  # a binding holds addresses: the arrays are kept here
            self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in self._outputs.items():
            self._binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self) -> Array:
        """The logits after the tokens; the next run writes over them."""
        self._session.run_with_iobinding(self._binding)
        return self.logits


class OnnxRuntimeDecoder:
    """The cached next-token graph over one block of memory per layer: each step writes into it in place.

    Keys and values are (rows, kv_heads, block_size, head_dim).
    """

    def __init__(self, session: Any, record: GraphRecord, sampler: TokenSampler, slots: int) -> None:
        self.slots = slots
        self._session, self._graph, self._buckets = session, record.name, record.row_buckets
        rows = max(held.start + size for held, size in split(slots, self._buckets, MAX_PADDING))
        shape = (rows, sampler.kv_heads, sampler.block_size, sampler.head_dim)
        past = [spec for spec in record.inputs if spec.name.startswith("past_")]
        try:
            self._memory = {spec.name: np.zeros(shape, spec.dtype) for spec in past}
        except MemoryError as error:
            remedy = "take fewer slots, or a lower cache_precision"
            raise BundleError(f"{error}", where=f"cache of graph {record.name}", remedy=remedy) from error
        self.cache_bytes = sum(memory.nbytes for memory in self._memory.values())
        self._vocab_size, self._block_size = sampler.vocab_size, sampler.block_size
        self._steps: dict[tuple[int, int], Reading] = {}

    def prefill(self, slot: int, tokens: Sequence[int]) -> Array:
        """Read `tokens` from the beginning into row `slot`; returns the next token's logits, (V,)."""
        with named(self._graph):
            reading = Reading(self._session, self._memory, slot, (1, len(tokens)), self._vocab_size)
            reading.tokens[0], reading.last[:] = tokens, len(tokens) - 1
            reading.in_use[...] = len(tokens)  # tells a prompt from a step
            logits: Array = reading.run()[0]
        return logits

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Array:
        """Read one more token into each of rows 0, 1, ...; returns (B, V); the next step writes over it."""
        parts = []
        for held, size in split(len(tokens), self._buckets, MAX_PADDING):
            reading = self._step(held.start, size)
            reading.tokens[:, 0] = pad(np.array(tokens[held], np.int64), size)
            reading.last[:] = pad(np.array(lengths[held], np.int32), size)
            with named(self._graph):
                parts.append(reading.run()[: held.stop - held.start])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def move(self, source: int, destination: int) -> None:
        """Copy row `source` over row `destination`."""
        for memory in self._memory.values():
            memory[destination] = memory[source]

    def past_bytes(self, length: int) -> int:
        """How much memory the past of `length` tokens takes when it is saved."""
        return sum(memory[0, :, :length].nbytes for memory in self._memory.values())

    def save(self, slot: int, length: int) -> list[Array]:
        """A copy of the first `length` positions of row `slot`."""
        return [memory[slot, :, :length].copy() for memory in self._memory.values()]

    def restore(self, slot: int, past: Sequence[Array]) -> None:
        """Put what `save` gave into row `slot`, from the beginning."""
        for memory, held in zip(self._memory.values(), past, strict=True):
            memory[slot, :, : held.shape[1]] = held

    def _step(self, start: int, rows: int) -> Reading:
        """The reading of one token into each of `rows` rows from `start` on."""
        if (start, rows) not in self._steps:
            reading = Reading(self._session, self._memory, start, (rows, 1), self._vocab_size)
            reading.in_use[...] = self._block_size
            self._steps[start, rows] = reading
        return self._steps[start, rows]
