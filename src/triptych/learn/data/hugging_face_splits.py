"""What a Hugging Face data set is cut into: rows of tables, or a stream and what is held out of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from triptych.errors import ConfigError, DataError
from triptych.learn.data.arrays import parts

NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
SHARE, HELD_OUT = 0.1, 1000


class ExampleSource:
    """The examples of an `IterableDataset`, without the first `skip`."""

    def __init__(self, stream: Any, skip: int = 0) -> None:
        self.stream, self.skip = stream, skip

    def open(self, state: Any = None) -> Examples:
        """The examples from the beginning, or from where `state` was taken."""
        stream = self.stream.skip(self.skip)  # a walk of its own: states belong to it, not to the data set
        if state is not None:
            stream.load_state_dict(state)
        return Examples(stream)


class Examples:
    """One walk over an `IterableDataset`."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._items = stream, iter(stream)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def state(self) -> Any:
        """What `IterableDataset.load_state_dict` needs to go on after what was read so far."""
        return self._stream.state_dict()


class Splits:
    """The splits by name, with the sizes of those that must be taken from `train`.

    Args:
        data: a `Dataset`, `DatasetDict`, `IterableDataset` or `IterableDatasetDict`.
        sizes: share or number for `validation` and `test`, None for the default.
    """

    def __init__(self, data: Any, sizes: Mapping[str, float | None], seed: int) -> None:
        self.given, self.seed = named(data), seed
        self.train = self.given["train"]
        self.streamed = hasattr(self.train, "load_state_dict")
        if self.streamed:
            check_stream(self.train)
        default = HELD_OUT if self.streamed else SHARE
        self.sizes = {name: default if size is None else size for name, size in sizes.items()}
        for name in self.given.keys() & sizes.keys():
            if sizes[name] is not None:
                raise ConfigError(
                    f"got {sizes[name]}, and the data set has a split of that name",
                    where=f"data.{name}",
                    remedy="leave it out",
                )

    def first(self) -> Any:
        """The first training example. Raises `DataError` if there is none."""
        for item in self.train:
            return item
        raise DataError("the data set is empty", where="train")

    def tables(self) -> list[tuple[Any, Tensor]]:
        """The table and the rows of each split."""
        missing = [name for name in self.sizes if name not in self.given]
        sizes = [self.sizes[name] for name in missing]
        rest, *cut = parts(len(self.train), sizes, self.seed, where="data")
        rows = {"train": (self.train, rest)}
        rows |= {
            name: (table, torch.arange(len(table))) for name, table in self.given.items() if name != "train"
        }
        rows |= {name: (self.train, index) for name, index in zip(missing, cut, strict=True)}
        return [rows[name] for name in NAMES]

    def stream(self) -> tuple[ExampleSource, list[Any], list[Any]]:
        """The training stream, and the validation and test examples, which are held in memory."""
        walk = ExampleSource(self.train).open()
        held, skipped = {}, 0
        for name, size in self.sizes.items():
            count = whole_number(name, size)
            own = name in self.given
            held[name] = list(islice(ExampleSource(self.given[name]).open() if own else walk, count))
            skipped += 0 if own else count
            if not held[name] or (not own and len(held[name]) < count):
                raise DataError(
                    f"the stream has not {count} examples for the {name} split",
                    where="data",
                    remedy=f"set `{name}` to fewer",
                )
        return ExampleSource(self.train, skipped), held["validation"], held["test"]


def named(data: Any) -> dict[str, Any]:
    """The splits of a data set of the `datasets` library under our names."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "the library `datasets` is not installed", where="data", remedy="pip install 'triptych[hf]'"
        ) from error
    if isinstance(data, datasets.Dataset | datasets.IterableDataset):
        return {"train": data}
    if not isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise ConfigError(
            f"got a {type(data).__name__}",
            where="data",
            valid="a Dataset, DatasetDict, IterableDataset or IterableDatasetDict of the `datasets` library",
            remedy="load one with datasets.load_dataset",
        )
    found = {ours: data[name] for ours, names in NAMES.items() for name in names[::-1] if name in data}
    if "train" not in found:
        raise ConfigError(
            "the data set has no split `train`",
            where="data",
            valid=", ".join(data),
            remedy="give one split of it alone, such as data['...']",
        )
    return found


def check_stream(stream: Any) -> None:
    """Refuse a stream with a shuffle buffer of its own: what that holds is lost when a run is resumed."""
    inner = getattr(stream, "_ex_iterable", None)
    while inner is not None:
        if type(inner).__name__.startswith("BufferShuffled"):
            raise ConfigError(
                "the stream is shuffled already, and what its buffer holds would be lost on resume",
                where="data",
                remedy="give the stream as it was before .shuffle(), and set shuffle_buffer",
            )
        inner = getattr(inner, "ex_iterable", None)


def whole_number(name: str, size: float) -> int:
    """A number of examples: a stream has no length to take a share of."""
    if isinstance(size, int) and size >= 1:
        return size
    raise ConfigError(f"got {size}", where=f"data.{name}", valid="for a stream, a number of examples from 1")
