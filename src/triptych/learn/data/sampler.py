"""The walk over a split: endless seeded batches, and the cursor that says where to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from triptych.errors import DataError
from triptych.learn.models.base import Batch

if TYPE_CHECKING:
    from triptych.learn.data.split import Split


class Cursor(msgspec.Struct, omit_defaults=True):
    """Where the walk over a split stands; the whole state, and JSON.

    `epoch` counts passes, `position` the batches taken in this pass. `mark` is only for streams: what their
    source needs to go on near `position` without reading the pass from its beginning. A pass takes as many
    full batches as fit; what is left over differs from pass to pass, as the order does.
    """

    seed: int
    epoch: int = 0
    position: int = 0
    mark: Any = None


class Sampler:
    """Endless seeded batches of a split; its `cursor` says where to go on from.

    >>> import torch
    >>> from triptych.learn.data.split import ArraySplit
    >>> walk = Sampler(ArraySplit(torch.arange(5.0)[:, None]), 2, Cursor(seed=0))
    >>> [len(walk.next()) for _ in range(3)], walk.cursor
    ([2, 2, 2], Cursor(seed=0, epoch=1, position=1, mark=None))
    """

    def __init__(self, split: Split, batch_size: int, cursor: Cursor) -> None:
        self.split, self.batch_size = split, min(batch_size, len(split))
        self.per_epoch = len(split) // self.batch_size
        self.seek(cursor)

    def seek(self, cursor: Cursor) -> None:
        """Go to where `cursor` stands."""
        self.cursor = msgspec.structs.replace(cursor)
        self._batches = self.split.walk(self.cursor, self.batch_size)

    def next(self) -> Batch:
        """The next batch; after the last full batch of a pass the next pass begins.

        Raises: DataError if a whole pass gives no full batch.
        """
        if (batch := next(self._batches, None)) is not None:
            return batch
        self.seek(Cursor(self.cursor.seed, self.cursor.epoch + 1))
        if (batch := next(self._batches, None)) is not None:
            return batch
        raise DataError(
            f"a whole pass gave fewer than {self.batch_size} examples",
            where="data",
            remedy="give more examples, or a smaller train.batch_size",
        )
