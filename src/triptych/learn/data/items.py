"""The items of other people's data sets: a tensor, a picture, a tuple or a dict becomes an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from triptych.errors import DataError, nearest
from triptych.learn.data.arrays import as_examples
from triptych.learn.data.labels import Names, class_number
from triptych.learn.data.pixels import Channels, pixels

Array = np.ndarray
Column = str | int
LabelColumn = str | int | Literal[False] | None
USUAL = ("image", "img", "x", "text")
LABEL = "label"


@dataclass(frozen=True)
class ItemReader:
    """Which part of an item is the example and which its label, and how they become arrays.

    `column` and `label_column` are a dict's keys or a tuple's places; a `label_column` of None means that
    there are no labels. `size` and `channels` are for pictures; see `pixels`.
    """

    column: Column | None
    label_column: Column | None
    classes: Names = ()
    size: int | None = None
    channels: Channels | None = None
    where: str = "data"

    @classmethod
    def of(
        cls,
        item: Any,
        *,
        column: Column | None,
        label_column: LabelColumn,
        classes: Names,
        size: int | None = None,
        channels: Channels | None = None,
        where: str = "data",
    ) -> ItemReader:
        """The reader of items like `item`; what is not given is found by convention.

        A tuple is (example, label). The example of a dict is its only picture, else the first key of
        `USUAL`, else its only entry beside the label; `LABEL` is the label, if there is one. A
        `label_column` of False leaves labels out.
        """
        if isinstance(item, Mapping):
            column = _example_key(item, label_column, where) if column is None else column
            usual: Column | None = LABEL if LABEL in item and column != LABEL else None
        elif isinstance(item, tuple | list):
            column, usual = 0 if column is None else column, 1 if len(item) == 2 else None
        elif column is not None or label_column not in (None, False):
            raise DataError(
                f"items are a {type(item).__name__}, which has no columns",
                where=where,
                remedy="leave `column` and `label_column` out",
            )
        else:
            usual = None
        chosen = usual if label_column is None else label_column
        return cls(column, None if chosen is False else chosen, classes, size, channels, where)

    def example(self, item: Any) -> Any:
        """The part of an item that is the example."""
        return item if self.column is None else part(item, self.column, self.where)

    def label(self, item: Any) -> Any:
        """The part of an item that is the label, or None."""
        return None if self.label_column is None else part(item, self.label_column, self.where)

    def stack(self, items: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
        """Items as stored examples, (B, *sample_shape) of uint8 or float32, with their labels, (B,)."""
        rows = [self._array(self.example(item)) for item in items]
        if len(shapes := {row.shape for row in rows}) > 1:
            shown = " and ".join(map(str, sorted(shapes)[:2]))
            raise DataError(
                f"examples of different shapes, such as {shown}",
                where=self.where,
                remedy="bring them to one: for pictures set `size` and `channels`",
            )
        labels = None if self.label_column is None else [self.label(item) for item in items]
        return as_examples(np.stack(rows), where=self.where), self.numbers(labels)

    def numbers(self, labels: Sequence[Any] | Tensor | None) -> Tensor | None:
        """Labels of a batch, as numbers or names, as int64."""
        if labels is None:
            return None
        values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else [plain(v) for v in labels]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise DataError(
                    f"a label is a {type(value).__name__}",
                    where=self.where,
                    valid="an integer or the name of a class",
                    remedy="name the right one with `label_column`; False leaves labels out",
                )
        return torch.tensor([class_number(value, self.classes, where=self.where) for value in values])

    def _array(self, x: Any) -> Array:
        if isinstance(x, Image.Image):
            return pixels(x, size=self.size, channels=self.channels, where=self.where)
        if self.size is not None or self.channels is not None:
            raise DataError(
                f"`size` and `channels` are for pictures, and an example is a {type(x).__name__}",
                where=self.where,
                remedy="leave them out, and resize in the data set's own transform",
            )
        try:
            return x.numpy() if isinstance(x, Tensor) else np.asarray(x)
        except ValueError as error:
            raise DataError("an example is ragged", where=self.where) from error


def part(item: Any, key: Column, where: str) -> Any:
    """One entry of a dict or a tuple."""
    try:
        return item[key]
    except (KeyError, IndexError, TypeError) as error:
        names = list(map(str, item)) if isinstance(item, Mapping) else []
        raise DataError(
            f"items have no {key!r}",
            where=where,
            valid=", ".join(names) or f"a {type(item).__name__}",
            remedy=nearest(str(key), names),
        ) from error


def plain(value: Any) -> Any:
    """A tensor or an array of one number as that number."""
    return value.item() if isinstance(value, Tensor | np.generic | np.ndarray) and value.ndim == 0 else value


def _example_key(item: Mapping[str, Any], label_column: LabelColumn, where: str) -> str:
    others = [key for key in item if key not in (LABEL, label_column)]
    pictures = [key for key in others if isinstance(item[key], Image.Image)]
    usual = [key for key in USUAL if key in others]
    for candidates in (pictures, others):
        if len(candidates) == 1:
            return candidates[0]
    if usual:
        return usual[0]
    raise DataError(
        "it is not clear which column holds the examples",
        where=where,
        valid=", ".join(map(str, item)),
        remedy="set `column`",
    )
