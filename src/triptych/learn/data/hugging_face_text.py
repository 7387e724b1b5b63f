"""Text columns of the `datasets` library as token windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer

from triptych.errors import ConfigError, DataError
from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.hugging_face_splits import Splits
from triptych.learn.data.split import Split, WindowSplit
from triptych.learn.data.stream import StreamSplit, stream_options
from triptych.learn.data.text import Coding, bpe_tokenizer, character_tokenizer, encode
from triptych.learn.data.windows import SEPARATOR, WindowSource
from triptych.learn.models.base import Batch

TOKENIZER_DOCUMENTS = 1000  # from which a stream's tokenizer is learned


class TextOptions(NamedTuple):
    """Where the text is, and how it becomes windows of tokens."""

    column: str
    tokenizer: Coding
    vocab_size: int
    block_size: int

    def text(self, item: Any) -> str:
        """The text of one item, "" for none."""
        return item[self.column] or ""

    def joined(self, items: Iterable[Any]) -> str:
        """The texts of several items, run together."""
        return "".join(self.text(item) + SEPARATOR for item in items)

    def windows(self, text: str, coder: Tokenizer, name: str) -> WindowSplit:
        """A text as a split; at least one token to predict."""
        split = WindowSplit(encode(coder, text), self.block_size)
        if len(split.tokens) < 2 or (name == "train" and len(split) < 1):
            raise DataError(
                f"the {name} split has {len(split.tokens)} tokens, too few",
                where=f"column {self.column}",
                remedy=f"give more text, or a block_size below {self.block_size}",
            )
        return split


def whole_text(splits: Splits, options: TextOptions, section: dict[str, Any]) -> Dataset:
    """The text of a table, in memory as tokens."""
    train, *rest = (
        options.joined(table.select_columns([options.column]).select(rows.tolist()))
        for table, rows in splits.tables()
    )
    if options.tokenizer == "characters":
        coder = character_tokenizer("".join((train, *rest)))
    else:
        coder = bpe_tokenizer([train], options.vocab_size)
    held = [
        options.windows(text, coder, name) for text, name in zip(rest, ("validation", "test"), strict=True)
    ]
    first = options.windows(train, coder, "train")
    digest = hashlib.sha256("\0".join((train, *rest)).encode()).hexdigest()
    return dataset(first, held, coder, options, section, "text of a Hugging Face data set", digest)


def streamed_text(splits: Splits, options: TextOptions, section: dict[str, Any]) -> Dataset:
    """The text of a stream; the validation and test documents are in memory."""
    if options.tokenizer == "characters":
        raise ConfigError(
            "the characters of a stream are not known beforehand",
            where="data.tokenizer",
            valid="bpe, which can write any text",
        )
    source, *held = splits.stream()
    learned_from = [options.text(item) for item in islice(source.open(), TOKENIZER_DOCUMENTS)]
    coder = bpe_tokenizer(learned_from, options.vocab_size)
    windows = WindowSource(source, options.text, coder, options.block_size)
    train = StreamSplit(windows, read, **stream_options(section))
    rest = [
        options.windows(options.joined(items), coder, name)
        for items, name in zip(held, ("validation", "test"), strict=True)
    ]
    return dataset(train, rest, coder, options, section, "text of a Hugging Face stream")


def read(windows: Sequence[list[int]]) -> Batch:
    """Windows of token ids as a batch."""
    return Batch(torch.tensor(windows))


def dataset(
    train: Split,
    held: Sequence[Split],
    coder: Tokenizer,
    options: TextOptions,
    section: dict[str, Any],
    source: str,
    digest: str = "",
) -> Dataset:
    """The data set of these splits."""
    spec = DataSpec(
        kind="text",
        sample_shape=(options.block_size,),
        source=source,
        digest=digest,
        vocab_size=coder.get_vocab_size(),
        block_size=options.block_size,
    )
    validation, test = held
    return Dataset("hugging_face", spec, train, validation, test, tokenizer=coder.to_str(), section=section)
