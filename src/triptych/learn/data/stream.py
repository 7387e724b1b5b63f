"""Streams: data read in the order it comes, shuffled within blocks, never held, and resumed exactly.

A usual shuffle buffer mixes what it holds with what comes, so to go on one would have to save what it holds.
Here a block of `shuffle_buffer` items is read, put in a seeded order and used up before the next is read: the
state of the source at the beginning of a block is then all that a checkpoint needs, a few numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch

from triptych.errors import ConfigError
from triptych.learn.data.sampler import Cursor
from triptych.learn.data.split import SequentialSplit, generator
from triptych.learn.models.base import Batch

SHUFFLE_BUFFER = 1000


class Items(Protocol):
    """A walk over a source."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def state(self) -> Any:
        """JSON that `Source.open` needs to go on after what was read so far."""
        ...


class Source(Protocol):
    """Where a stream comes from."""

    def open(self, state: Any = None) -> Items:
        """The items from the beginning, or from where `state` was taken."""
        ...


class StreamSplit(SequentialSplit):
    """A split of unknown length; a pass ends where the source does.

    Args:
        read: makes a batch of items.
        examples_per_epoch: how many examples count as an epoch, for the length of training and the rhythm of
            validation; the walk goes on through the source whatever it is.
        shuffle_buffer: how many items are in memory and mixed at a time; at least one batch.
    """

    def __init__(
        self,
        source: Source,
        read: Callable[[Sequence[Any]], Batch],
        *,
        examples_per_epoch: int,
        shuffle_buffer: int,
    ) -> None:
        self.source, self.read = source, read
        self.examples_per_epoch, self.shuffle_buffer = examples_per_epoch, shuffle_buffer

    def __len__(self) -> int:
        return self.examples_per_epoch

    def walk(self, cursor: Cursor, batch_size: int) -> Iterator[Batch]:
        """Full batches from where `cursor` stands to the end of its pass; moves `cursor` with each."""
        per_block = max(1, self.shuffle_buffer // batch_size)
        block, taken = divmod(cursor.position, per_block)
        mark = cursor.mark  # the source at the beginning of `block`
        source = self.source.open(mark)
        while items := list(islice(source, per_block * batch_size)):
            after = source.state()
            draw = generator(cursor.seed * 1_000_003 + cursor.epoch, block)
            order = torch.randperm(len(items), generator=draw).tolist()
            for number in range(taken, len(items) // batch_size):
                chosen = order[number * batch_size : (number + 1) * batch_size]
                cursor.position += 1
                cursor.mark = after if number + 1 == per_block else mark
                yield self.read([items[place] for place in chosen])
            block, taken, mark = block + 1, 0, after

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        source = self.source.open()
        while items := list(islice(source, batch_size)):
            yield self.read(items), len(items)


def stream_options(section: Mapping[str, Any]) -> dict[str, int]:
    """`examples_per_epoch` and `shuffle_buffer` of a `[data]` section.

    Raises: ConfigError for a number below 1, or no number of examples.
    """
    options = {name: section[name] for name in ("examples_per_epoch", "shuffle_buffer")}
    if options["shuffle_buffer"] is None:
        options["shuffle_buffer"] = SHUFFLE_BUFFER
    for name, number in options.items():
        if number is None or number < 1:
            raise ConfigError(
                "is missing" if number is None else f"got {number}",
                where=f"data.{name}",
                valid="1 or more",
                remedy="" if number else "a stream has no length: say how many examples count as an epoch",
            )
    return options
