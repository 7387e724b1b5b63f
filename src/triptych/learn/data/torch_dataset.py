"""Map-style torch data sets: read anew at each visit, as a `DataLoader` would, or once into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from triptych.errors import ConfigError, DataError
from triptych.learn.data.arrays import Binarize, array_split, content_digest, parts
from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.items import Column, ItemReader, LabelColumn
from triptych.learn.data.pixels import Channels
from triptych.learn.data.split import ArraySplit, IndexedSplit, as_batch, generator
from triptych.learn.models.base import Batch

AT_ONCE = 256  # items read together into memory


class LazySplit(IndexedSplit):
    """Items of a map-style data set, read at each visit; nothing is kept.

    What an item draws at random (augmentation) comes from torch's, numpy's and Python's global generators,
    which checkpoints hold, so a resumed run sees the same. `fixed` binarisation depends on (seed, place).

    Args:
        index: the places in `source` that this split holds, (N,).
    """

    def __init__(
        self, source: Any, index: Tensor, reader: ItemReader, *, binarize: Binarize = "none", seed: int = 0
    ) -> None:
        self.source, self.index, self.reader = source, index, reader
        self.binarize, self.seed = binarize, seed

    def __len__(self) -> int:
        return len(self.index)

    def order(self, seed: int, epoch: int) -> Tensor:
        return torch.randperm(len(self), generator=generator(seed, epoch))

    def take(self, index: Tensor) -> Batch:
        x, labels = self.stored(index)
        batch = as_batch(x, labels, dynamic=self.binarize == "dynamic")
        if self.binarize != "fixed":
            return batch
        rows = [
            torch.bernoulli(p, generator=generator(self.seed, place))
            for p, place in zip(batch.x, self.index[index].tolist(), strict=True)
        ]
        return Batch(torch.stack(rows), labels)

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        for index in torch.split(torch.arange(len(self)), batch_size):
            if len(index):
                yield self.take(index), len(index)

    def stored(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The examples at `index` as they are stored, and their labels."""
        places = self.index[index].tolist()
        if hasattr(self.source, "__getitems__"):
            return self.reader.stack(self.source.__getitems__(places))
        return self.reader.stack([self.source[place] for place in places])

    def in_memory(self) -> ArraySplit:
        """The same examples, each read once."""
        chunks = [self.stored(index) for index in torch.split(torch.arange(len(self)), AT_ONCE) if len(index)]
        if len(shapes := {x.shape[1:] for x, _ in chunks}) > 1:
            raise DataError(
                f"examples of {len(shapes)} shapes", where=self.reader.where, remedy="bring them to one shape"
            )
        labels = [y for _, y in chunks if y is not None]
        x = torch.cat([x for x, _ in chunks])
        return array_split(x, torch.cat(labels) if labels else None, self.binarize, self.seed)


def from_torch(
    dataset: Any,
    *,
    validation: Any = 0.1,
    test: Any = 0.1,
    column: Column | None = None,
    label_column: LabelColumn = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    channels: Channels | None = None,
    binarize: Binarize = "none",
    in_memory: bool = False,
    seed: int = 0,
) -> Dataset:
    """A map-style torch data set: `len(dataset)` items, `dataset[i]` a tensor, a PIL image, an (x, label)
    tuple or a dict.

    Examples are uint8 from 0 to 255 or floats from 0 to 1. Items are read anew at each visit, so that
    augmentation at random stays random and nothing large is held; a resumed run sees the same as one that was
    never interrupted if the items draw from torch's, numpy's or Python's global generator alone. With
    `in_memory` each item is read once, which is much faster for small data that never changes.

    Args:
        validation: a share of `dataset`, or a data set of its own (without the augmentation, say).
        test: the same.
        column: the dict key or tuple place of the example; see `ItemReader.of` for the convention.
        label_column: the same for the label; False leaves labels out.
        classes: names of the classes; by default `dataset.classes`, where it has them.
        size: side in pixels of PIL images, scaled and cut to the middle square.
        channels: 1 or 3 for PIL images; by default grey pictures have 1 and others 3.
    """
    check_map_style(dataset, "dataset")
    shares = [part for part in (validation, test) if isinstance(part, float | int)]
    cut = iter(parts(len(dataset), shares, seed, where="data"))
    sources = [(dataset, next(cut))]
    for name, part in (("validation", validation), ("test", test)):
        if isinstance(part, float | int):
            sources.append((dataset, next(cut)))
        else:
            check_map_style(part, name)
            sources.append((part, torch.arange(len(part))))
    names = tuple(classes if classes is not None else getattr(dataset, "classes", ()))
    reader = ItemReader.of(
        dataset[0],
        column=column,
        label_column=label_column,
        classes=names,
        size=size,
        channels=channels,
    )
    lazy = [
        LazySplit(source, index, reader, binarize=binarize, seed=seed + place)
        for place, (source, index) in enumerate(sources)
    ]
    section = {"name": "torch", "binarize": binarize, "in_memory": in_memory, "seed": seed}
    return of_lazy(lazy, f"a {type(dataset).__name__} of {len(dataset):,} items", section)


def of_lazy(lazy: Sequence[LazySplit], source: str, section: dict[str, Any]) -> Dataset:
    """A data set of these training, validation and test splits; `section["in_memory"]` says how they are
    held.
    """
    reader = lazy[0].reader
    first = lazy[0].take(torch.arange(1))
    splits: list[LazySplit] | list[ArraySplit] = list(lazy)
    digest = ""
    if section["in_memory"]:
        splits = held = [split.in_memory() for split in lazy]
        digest = content_digest(*(tensor for split in held for tensor in (split.x, split.labels)))
    train, validation, test = splits
    spec = DataSpec(
        kind="image",
        sample_shape=tuple(first.x.shape[1:]),
        source=source,
        digest=digest,
        classes=reader.classes if reader.label_column is not None else (),
    )
    return Dataset(str(section["name"]), spec, train, validation, test, section=section)


def check_map_style(dataset: Any, where: str) -> None:
    """Raise unless `dataset` has items by number, at least one of them."""
    if isinstance(dataset, DataLoader):
        raise ConfigError("got a DataLoader", where=where, remedy="use from_loaders")
    if isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise ConfigError(
            f"got a {type(dataset).__name__}",
            where=where,
            valid="a map-style data set, with len(dataset) and dataset[i]",
            remedy="put an iterable one into a DataLoader and use from_loaders",
        )
    if len(dataset) == 0:
        raise DataError("the data set is empty", where=where)
