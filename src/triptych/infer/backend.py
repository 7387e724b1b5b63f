"""What an engine asks of the library that computes: run a graph, and decode tokens with a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

Array = np.ndarray


class TokenDecoder(Protocol):
    """The cached next-token graph with its cache: `slots` rows, each the past of one sequence."""

    slots: int
    cache_bytes: int

    def prefill(self, slot: int, tokens: Sequence[int]) -> Array:
        """Read `tokens` from the beginning into row `slot`; returns the next token's logits, (V,)."""
        ...

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Array:
        """Read one more token into each of rows 0, 1, ...; `lengths` counts what each held before.

        Returns (B, V), which the next step may write over.
        """
        ...

    def move(self, source: int, destination: int) -> None:
        """Copy row `source` over row `destination`."""
        ...

    def past_bytes(self, length: int) -> int:
        """How much memory the past of `length` tokens takes when it is saved."""
        ...

    def save(self, slot: int, length: int) -> list[Array]:
        """A copy of the first `length` positions of row `slot`."""
        ...

    def restore(self, slot: int, past: Sequence[Array]) -> None:
        """Put what `save` gave into row `slot`, from the beginning."""
        ...


class Backend(Protocol):
    """A library that runs the graphs of one bundle."""

    @property
    def name(self) -> str:
        """What computes, in a word or a few."""
        ...

    def open(self, graph: str) -> None:
        """Get a graph ready to run, so that its first run is quick.

        Raises `BundleRefused` if that cannot be.
        """
        ...

    def row_buckets(self, graph: str) -> tuple[int, ...]:
        """The batch sizes at which a row's bytes do not depend on its neighbours; empty if there is none."""
        ...

    def run(self, graph: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a graph on inputs that were checked before."""
        ...

    def decoder(self, graph: str, slots: int) -> TokenDecoder:
        """A next-token graph with a new cache of `slots` rows."""
        ...

    def close(self) -> None:
        """Let go of sessions and mapped files."""
        ...
