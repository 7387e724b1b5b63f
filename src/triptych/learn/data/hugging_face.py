"""Data sets of the `datasets` library: map-style or streamed; pictures, arrays or text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from triptych.errors import ConfigError
from triptych.learn.data.arrays import Binarize, array_split
from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.hugging_face_splits import Splits
from triptych.learn.data.hugging_face_text import TextOptions, streamed_text, whole_text
from triptych.learn.data.items import ItemReader, LabelColumn
from triptych.learn.data.labels import Names, as_labels
from triptych.learn.data.pixels import Channels
from triptych.learn.data.split import as_batch
from triptych.learn.data.stream import StreamSplit, stream_options
from triptych.learn.data.text import Coding, tokens_at_most
from triptych.learn.data.torch_dataset import LazySplit, of_lazy
from triptych.learn.models.base import Batch

MEMORY_BYTES = 2**30


def from_hugging_face(
    data: Any,
    *,
    column: str | None = None,
    label_column: LabelColumn = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    channels: Channels | None = None,
    binarize: Binarize | None = None,
    in_memory: bool | None = None,
    tokenizer: Coding | None = None,
    vocab_size: int | None = None,
    block_size: int | None = None,
    validation: float | None = None,
    test: float | None = None,
    examples_per_epoch: int | None = None,
    shuffle_buffer: int | None = None,
    seed: int = 0,
) -> Dataset:
    """A `Dataset`, `DatasetDict`, `IterableDataset` or `IterableDatasetDict` of the `datasets` library.

    A column of strings is text, any other holds pictures or arrays. Splits `train`, `validation` and `test`
    of a dict are taken as they are; what it has not is taken from `train`: a share by `seed` (0.1), or the
    first examples of a stream (1,000 each), which are then held in memory. The rest of a stream is never
    held: its items come in their order, mixed within blocks of `shuffle_buffer`, and a resumed run reads its
    block again and goes on in it; what is mapped onto the stream must not draw at random.

    Args:
        column: the text, picture or array; by default the only picture, or `image`, `img`, `x`, `text`.
        label_column: by default `label`, if there is one; False leaves labels out.
        classes: names of the classes; by default those of the column's `ClassLabel`, or what is in it.
        size: side in pixels of pictures; see `from_torch`, also for `channels` and `binarize`.
        in_memory: whether a table's pictures are read once, or at each visit. By default once, if they take
            no more than `MEMORY_BYTES` and no transform is set on the table.
        tokenizer: of text: `bpe`, byte-pair encoding of up to `vocab_size` (1,024) tokens, or `characters`. A
            stream's is learned from its first 1,000 documents.
        block_size: tokens of context (64). Documents are run together, a newline after each.
        validation: a share or a number of examples; `test` likewise.
        examples_per_epoch: streams only, and needed there: how many examples count as an epoch.
        shuffle_buffer: streams only (1,000): how many items, or windows of text, are mixed at a time.
    """
    splits = Splits(data, {"validation": validation, "test": test}, seed)
    first = splits.first()
    reader = ItemReader.of(first, column=column, label_column=label_column, classes=())
    is_text = isinstance(reader.example(first), str)
    of_pictures: dict[str, Any] = {"label_column": label_column, "classes": classes, "size": size}
    of_pictures |= {"channels": channels, "binarize": binarize, "in_memory": in_memory}
    of_text: dict[str, Any] = {"tokenizer": tokenizer, "vocab_size": vocab_size, "block_size": block_size}
    of_streams: dict[str, Any] = {"examples_per_epoch": examples_per_epoch, "shuffle_buffer": shuffle_buffer}
    refuse(of_pictures if is_text else of_text, "text" if is_text else "pictures or arrays")
    refuse(
        {"in_memory": in_memory} if splits.streamed else of_streams,
        "a stream" if splits.streamed else "no stream",
    )
    section: dict[str, Any] = {
        "name": "hugging_face",
        "column": reader.column,
        "seed": seed,
        "validation": validation,
        "test": test,
    }
    section |= of_streams | (of_text if is_text else {**of_pictures, "label_column": reader.label_column})
    return text_of(splits, section) if is_text else pictures_of(splits, reader, section)


def text_of(splits: Splits, section: dict[str, Any]) -> Dataset:
    """Text, as `section` says."""
    coding: Coding = section["tokenizer"] or "bpe"
    largest = tokens_at_most(coding, section["vocab_size"])
    options = TextOptions(str(section["column"]), coding, largest, section["block_size"] or 64)
    return (streamed_text if splits.streamed else whole_text)(splits, options, section)


def pictures_of(splits: Splits, reader: ItemReader, section: dict[str, Any]) -> Dataset:
    """Pictures or arrays, as `section` says."""
    names = class_names(splits, reader, section["classes"])
    reader = replace(reader, classes=names, size=section["size"], channels=section["channels"])
    section = {**section, "binarize": section["binarize"] or "none"}
    if splits.streamed:
        return streamed_pictures(splits, reader, section)
    if section["in_memory"] is None:
        section["in_memory"] = is_small(splits, reader)
    return whole_pictures(splits, reader, section)


def is_small(splits: Splits, reader: ItemReader) -> bool:
    """Whether to hold the pictures of tables: they are few, and reading one again would give the same."""
    tables = splits.given.values()
    size_bytes = reader.stack([splits.first()])[0].nbytes * sum(map(len, tables))
    return size_bytes <= MEMORY_BYTES and all(table.format["type"] != "custom" for table in tables)


def whole_pictures(splits: Splits, reader: ItemReader, section: dict[str, Any]) -> Dataset:
    """Pictures or arrays of a table."""
    lazy = [
        LazySplit(table, rows, reader, binarize=section["binarize"], seed=splits.seed + place)
        for place, (table, rows) in enumerate(splits.tables())
    ]
    return of_lazy(lazy, f"{sum(map(len, lazy)):,} examples of a Hugging Face data set", section)


def streamed_pictures(splits: Splits, reader: ItemReader, section: dict[str, Any]) -> Dataset:
    """Pictures or arrays of a stream; the validation and test examples are in memory."""
    if section["binarize"] == "fixed":
        raise ConfigError("a stream cannot be drawn once", where="data.binarize", valid="none, dynamic")
    dynamic = section["binarize"] == "dynamic"

    def read(items: Sequence[Any]) -> Batch:
        return as_batch(*reader.stack(items), dynamic=dynamic)

    source, *held = splits.stream()
    validation, test = (array_split(*reader.stack(items), section["binarize"], splits.seed) for items in held)
    spec = DataSpec(
        kind="image",
        sample_shape=tuple(validation.x.shape[1:]),
        source="a Hugging Face stream",
        digest="",
        classes=reader.classes,
    )
    train = StreamSplit(source, read, **stream_options(section))
    return Dataset("hugging_face", spec, train, validation, test, section=section)


def class_names(splits: Splits, reader: ItemReader, classes: Sequence[str] | None) -> Names:
    """The names that were given, those of the column's feature, or what a table's column holds."""
    if reader.label_column is None:
        return as_labels(None, 0, where="data", classes=classes)[1]
    if classes is not None:
        return tuple(classes)
    feature = (splits.train.features or {}).get(reader.label_column)
    if names := getattr(feature, "names", None):
        return tuple(names)
    if splits.streamed:
        return ()
    labels = list(splits.train[reader.label_column])
    return as_labels(labels, len(labels), where=f"column {reader.label_column}")[1]


def refuse(settings: dict[str, Any], what: str) -> None:
    """Raise `ConfigError` for a setting that has no effect on `what` the data is."""
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(
                f"got {value!r}, and the data is {what}", where=f"data.{name}", remedy="leave it out"
            )
