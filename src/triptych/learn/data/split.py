"""One split of a data set, whole batches at a time.

Splits in memory answer with one gather and one conversion, never a loop over examples. Splits that are read
anew at each visit (`lazy`) and streams (`stream`, `loader`) fill the same protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from triptych.learn.data.sampler import Cursor, Sampler
from triptych.learn.models.base import Batch

__all__ = [
    "ArraySplit",
    "Cursor",
    "IndexedSplit",
    "Sampler",
    "SequentialSplit",
    "Split",
    "WindowSplit",
    "as_batch",
    "generator",
]


class Split(Protocol):
    """What the trainer asks of data."""

    def __len__(self) -> int:
        """Examples in one pass."""

    def walk(self, cursor: Cursor, batch_size: int) -> Iterator[Batch]:
        """Full batches from where `cursor` stands to the end of its pass; moves `cursor` with each.

        The order depends on (cursor.seed, cursor.epoch) alone.
        """

    def take(self, index: Tensor) -> Batch:
        """The examples at these places; in a split without random access, counted from its beginning."""

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """The whole split in its stored order, each batch with its weight (examples, or tokens to
        predict).
        """


class IndexedSplit(ABC):
    """A split with random access: a pass is a seeded order, a batch is what stands at a stretch of it."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples in one pass."""

    @abstractmethod
    def order(self, seed: int, epoch: int) -> Tensor:
        """Where the examples of this pass start, in a random order that depends on (seed, epoch) alone."""

    @abstractmethod
    def take(self, index: Tensor) -> Batch:
        """The examples that start at `index`."""

    def walk(self, cursor: Cursor, batch_size: int) -> Iterator[Batch]:
        """Full batches from where `cursor` stands to the end of its pass; moves `cursor` with each."""
        order = self.order(cursor.seed, cursor.epoch)
        while (start := cursor.position * batch_size) + batch_size <= len(order):
            cursor.position += 1
            yield self.take(order[start : start + batch_size])


class SequentialSplit(ABC):
    """A split that can only be read from its beginning."""

    @abstractmethod
    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """The whole split in its stored order, each batch with its weight."""

    def take(self, index: Tensor) -> Batch:
        """The examples at these places of the stored order; reads no further than it must."""
        needed = int(index.max()) + 1
        read: list[Batch] = []
        for batch, _ in self.whole(needed):
            read.append(batch)
            if sum(map(len, read)) >= needed:
                break
        labels = [batch.labels for batch in read if batch.labels is not None]
        x = torch.cat([batch.x for batch in read])[index]
        return Batch(x, torch.cat(labels)[index] if labels else None)


def generator(seed: int, epoch: int = 0) -> torch.Generator:
    """A generator of its own for (seed, epoch): the global one is left alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def as_batch(x: Tensor, labels: Tensor | None, *, dynamic: bool) -> Batch:
    """Stored examples as a model takes them: float32 from 0 to 1, or drawn as Bernoulli when `dynamic`."""
    x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x
    return Batch(torch.bernoulli(x) if dynamic else x, labels)


class ArraySplit(IndexedSplit):
    """Examples as rows of one tensor: uint8 (0 to 255) or float32 (0 to 1), converted a batch at a time.

    Args:
        x: (N, *sample_shape).
        labels: (N,) int64, or None.
        dynamic: draw each value as a Bernoulli with that probability, anew at every visit.
    """

    def __init__(self, x: Tensor, labels: Tensor | None = None, *, dynamic: bool = False) -> None:
        self.x, self.labels, self.dynamic = x, labels, dynamic

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def order(self, seed: int, epoch: int) -> Tensor:
        return torch.randperm(len(self), generator=generator(seed, epoch))

    def take(self, index: Tensor) -> Batch:
        labels = None if self.labels is None else self.labels.index_select(0, index)
        return as_batch(self.x.index_select(0, index), labels, dynamic=self.dynamic)

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        for index in torch.split(torch.arange(len(self)), batch_size):
            if len(index):
                yield self.take(index), len(index)


class WindowSplit(IndexedSplit):
    """A stream of token ids, cut into windows of `block_size + 1` (inputs and targets overlap by one).

    Each training pass starts its windows at an offset of its own in [0, block_size), so that over many
    passes every token is seen at every position. `whole` predicts each token after the first exactly once.
    """

    def __init__(self, tokens: Tensor, block_size: int) -> None:
        self.tokens, self.block_size = tokens, block_size
        self._reach = torch.arange(block_size + 1)

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.block_size) // self.block_size)

    def order(self, seed: int, epoch: int) -> Tensor:
        draw = generator(seed, epoch)
        offset = torch.randint(self.block_size, (1,), generator=draw)
        return torch.randperm(len(self), generator=draw) * self.block_size + offset

    def take(self, index: Tensor) -> Batch:
        return Batch(self.tokens[index[:, None] + self._reach].long())

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        full, rest = divmod(len(self.tokens) - 1, self.block_size)
        for index in torch.split(torch.arange(full) * self.block_size, batch_size):
            if len(index):
                yield self.take(index), len(index) * self.block_size
        if rest:
            yield Batch(self.tokens[-rest - 1 :].long()[None]), rest
