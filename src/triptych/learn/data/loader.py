"""Torch data loaders: their own batches, in an order that a resumed run can find again."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from triptych.errors import ConfigError, DataError
from triptych.learn.data.arrays import as_examples
from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.items import Column, ItemReader, LabelColumn
from triptych.learn.data.sampler import Cursor
from triptych.learn.data.split import ArraySplit, SequentialSplit, as_batch, generator
from triptych.learn.models.base import Batch


class Draws:
    """Global generators of one pass: inside `borrowed` they are seeded by (seed, epoch) and go on from visit
    to visit; outside they stand where they stood.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self.seed = int(torch.randint(2**31, (), generator=generator(seed, epoch)))
        self._state: tuple[Any, ...] | None = None

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Draw from this pass's generators."""
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()
        if self._state is None:
            torch.manual_seed(self.seed)
            np.random.seed(self.seed)
            random.seed(self.seed)
        else:
            _restore(self._state)
        try:
            yield
        finally:
            self._state = torch.get_rng_state(), np.random.get_state(), random.getstate()
            _restore(before)


def _restore(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


class LoaderSplit(SequentialSplit):
    """The batches of a `DataLoader`, as it makes them; a last one that is not full is left out of training.

    Each pass seeds the loader by (seed, epoch), so a pass can be read again: to go on in the middle of one,
    its batches so far are read and dropped.
    """

    def __init__(self, loader: DataLoader[Any], reader: ItemReader, count: int, *, dynamic: bool) -> None:
        self.loader, self.reader, self.count, self.dynamic = loader, reader, count, dynamic

    def __len__(self) -> int:
        return self.count

    def walk(self, cursor: Cursor, batch_size: int) -> Iterator[Batch]:
        """Full batches from where `cursor` stands to the end of its pass; moves `cursor` with each."""
        if batch_size != self.loader.batch_size:
            raise ConfigError(
                f"got {batch_size}, and the loader makes batches of {self.loader.batch_size}",
                where="train.batch_size",
                remedy=f"set it to {self.loader.batch_size}",
            )
        return self._walk(cursor, batch_size)

    def _walk(self, cursor: Cursor, batch_size: int) -> Iterator[Batch]:
        for number, (x, labels) in enumerate(self._pass(cursor.seed, cursor.epoch)):
            if number >= cursor.position and len(x) == batch_size:
                cursor.position += 1
                yield as_batch(x, labels, dynamic=self.dynamic)

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        for x, labels in self._pass(0, 0):
            yield as_batch(x, labels, dynamic=self.dynamic), len(x)

    def _pass(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        draws = Draws(seed, epoch)
        with draws.borrowed():
            for owner in (self.loader, self.loader.sampler):
                if isinstance(own := getattr(owner, "generator", None), torch.Generator):
                    own.manual_seed(draws.seed)
            if hasattr(self.loader.sampler, "set_epoch"):
                self.loader.sampler.set_epoch(epoch)
            batches = iter(self.loader)
        while True:
            with draws.borrowed():
                item = next(batches, None)
            if item is None:
                return
            x = as_examples(self.reader.example(item), where=self.reader.where)
            yield x, self.reader.numbers(self.reader.label(item))


def from_loaders(
    train: DataLoader[Any],
    validation: DataLoader[Any],
    *,
    test: DataLoader[Any] | None = None,
    column: Column | None = None,
    label_column: LabelColumn = None,
    classes: Sequence[str] | None = None,
    binarize: Literal["none", "dynamic"] = "none",
    examples_per_epoch: int | None = None,
) -> Dataset:
    """Torch data loaders, with their own batch size, order, workers and collation; `train.batch_size` must be
    the training loader's.

    Batches are tensors (B, *sample_shape) of uint8 from 0 to 255 or floats from 0 to 1, tuples (x, labels) or
    dicts. A loader's order and augmentation are drawn anew for each pass from `train.seed`, whatever its own
    generator was seeded with; a resumed run reads the pass it was in up to where it was.

    Args:
        binarize: `dynamic` draws each value as a Bernoulli with that probability, anew at every visit.
        examples_per_epoch: how many examples count as an epoch; needed only where the loader has no length.
    """
    loaders = {"train": train, "validation": validation} | ({} if test is None else {"test": test})
    for name, loader in loaders.items():
        check_loader(loader, name)
    names = tuple(classes if classes is not None else getattr(train.dataset, "classes", ()))
    draws = Draws(0, 0)
    with draws.borrowed():
        first = next(iter(train), None)
    if first is None:
        raise DataError("the loader gives no batch", where="train")
    reader = ItemReader.of(first, column=column, label_column=label_column, classes=names)
    counts = {name: length(loader, name, examples_per_epoch) for name, loader in loaders.items()}
    splits = {
        name: LoaderSplit(loader, reader, counts[name], dynamic=binarize == "dynamic")
        for name, loader in loaders.items()
    }
    shape = tuple(as_examples(reader.example(first), where="train").shape[1:])
    spec = DataSpec(
        kind="image",
        sample_shape=shape,
        source=f"a loader of {type(train.dataset).__name__}",
        digest="",
        classes=names if reader.label_column is not None else (),
    )
    none = ArraySplit(torch.empty(0, *shape))
    section = {"name": "loaders", "binarize": binarize, "examples_per_epoch": examples_per_epoch}
    return Dataset(
        "loaders", spec, splits["train"], splits["validation"], splits.get("test", none), section=section
    )


def check_loader(loader: Any, where: str) -> None:
    """Raise unless training on this loader can be resumed exactly."""
    if not isinstance(loader, DataLoader):
        raise ConfigError(
            f"got a {type(loader).__name__}",
            where=where,
            valid="a DataLoader",
            remedy="for a Dataset use from_torch",
        )
    if loader.batch_size is None:
        raise ConfigError(
            "the loader has no batch_size of its own",
            where=where,
            remedy="give the loader a batch_size in place of a batch_sampler",
        )
    if loader.persistent_workers:
        raise ConfigError(
            "persistent workers keep their random state, so no run could be resumed exactly",
            where=where,
            remedy="make the loader with persistent_workers=False",
        )


def length(loader: DataLoader[Any], where: str, examples_per_epoch: int | None) -> int:
    """Examples in one pass of a loader, or what counts as one."""
    if where == "train" and examples_per_epoch is not None:
        return examples_per_epoch
    sized: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else loader.sampler
    if hasattr(sized, "__len__"):
        return len(sized)
    if where != "train":
        return 1  # nobody needs to know how many, only that there are some
    raise ConfigError(
        "the loader has no length", where="examples_per_epoch", remedy="say how many examples are an epoch"
    )
