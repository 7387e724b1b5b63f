"""A stream of documents as a stream of token windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Tokenizer

from triptych.learn.data.stream import Items, Source

SEPARATOR = "\n"  # after each document


class WindowSource:
    """Documents run together, cut into windows of `block_size + 1` token ids that overlap by one.

    Args:
        documents: where the texts come from; `text` picks the text of an item.
    """

    def __init__(
        self, documents: Source, text: Callable[[Any], str], tokenizer: Tokenizer, block_size: int
    ) -> None:
        self.documents, self.text = documents, text
        self.tokenizer, self.block_size = tokenizer, block_size

    def open(self, state: Any = None) -> Windows:
        """The windows from the beginning, or from where `state` was taken."""
        return Windows(self, state)


class Windows:
    """One walk; remembers where the document in hand begins, and what was left over before it."""

    def __init__(self, source: WindowSource, state: Any) -> None:
        self._source = source
        before, left_over, start = (None, [], 0) if state is None else state
        self._documents: Items = source.documents.open(before)
        self._ids: list[int] = left_over
        self._before, self._left_over, self._start = self._documents.state(), left_over, 0
        if start:
            self._read_on()
            self._start = start

    def __iter__(self) -> Iterator[list[int]]:
        return self

    def __next__(self) -> list[int]:
        size = self._source.block_size
        while len(self._ids) <= self._start + size:
            self._read_on()
        window = self._ids[self._start : self._start + size + 1]
        self._start += size
        return window

    def state(self) -> list[Any]:
        """The documents before the one in hand, the ids left over before it, and the place reached in it."""
        return [self._before, self._left_over, self._start]

    def _read_on(self) -> None:
        self._before, self._left_over = self._documents.state(), self._ids[self._start :]
        text = self._source.text(next(self._documents)) + SEPARATOR
        self._ids, self._start = self._left_over + self._source.tokenizer.encode(text).ids, 0
