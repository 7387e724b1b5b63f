"""One split of a data set, and the cursor that walks it in a seeded order.

A split answers with whole batches: one gather and one conversion, never a loop over examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from triptych.learn.models.base import Batch


class Split(Protocol):
    """What the trainer asks of data."""

    def __len__(self) -> int:
        """Examples in one pass."""

    def order(self, seed: int, epoch: int) -> Tensor:
        """Where the examples of this pass start, in a random order that depends on (seed, epoch) alone."""

    def take(self, index: Tensor) -> Batch:
        """The examples that start at `index`."""

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        """The whole split in its stored order, each batch with its weight (examples, or tokens to
        predict).
        """


def generator(seed: int, epoch: int = 0) -> torch.Generator:
    """A generator of its own for (seed, epoch): the global one is left alone."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


class ArraySplit:
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
        x = self.x.index_select(0, index)
        x = x.to(torch.float32).div_(255) if x.dtype == torch.uint8 else x
        if self.dynamic:
            x = torch.bernoulli(x)
        return Batch(x, None if self.labels is None else self.labels.index_select(0, index))

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        for index in torch.split(torch.arange(len(self)), batch_size):
            yield self.take(index), len(index)


class WindowSplit:
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


class Cursor(msgspec.Struct):
    """Where the walk over a split stands. The three numbers are the whole state.

    A pass takes as many full batches as fit; what is left over differs from pass to pass, as the order does.
    """

    seed: int
    epoch: int = 0
    position: int = 0


class Sampler:
    """Endless seeded batches of a split; its `cursor` says where to go on from.

    >>> import torch
    >>> walk = Sampler(ArraySplit(torch.arange(5.0)[:, None]), 2, Cursor(seed=0))
    >>> [len(walk.next()) for _ in range(3)], walk.cursor
    ([2, 2, 2], Cursor(seed=0, epoch=1, position=1))
    """

    def __init__(self, split: Split, batch_size: int, cursor: Cursor) -> None:
        self.split, self.batch_size = split, min(batch_size, len(split))
        self.per_epoch = len(split) // self.batch_size
        self.seek(cursor)

    def seek(self, cursor: Cursor) -> None:
        """Go to where `cursor` stands."""
        self.cursor = msgspec.structs.replace(cursor)
        self._order = self.split.order(cursor.seed, cursor.epoch)

    def next(self) -> Batch:
        """The next batch; after the last full batch of a pass the next pass begins."""
        if self.cursor.position == self.per_epoch:
            self.seek(Cursor(self.cursor.seed, self.cursor.epoch + 1))
        start = self.cursor.position * self.batch_size
        self.cursor.position += 1
        return self.split.take(self._order[start : start + self.batch_size])
