"""A data set: three splits, and what a model and a reader must know about them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from triptych.errors import ConfigError
from triptych.learn.data.split import Split
from triptych.learn.models.base import Config


class DataSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the examples are, and where they came from.

    `sample_shape` has no batch axis; image values lie in [`low`, `high`]. `digest` is the SHA-256 of the
    content, empty where that is read anew at each visit or streamed; `classes` are the names of the labels,
    empty without labels or where their number is not known; `source` says in words which text or pictures
    these are, for the numbers that get reported.
    """

    kind: Literal["image", "text"]
    sample_shape: tuple[int, ...]
    source: str
    digest: str
    low: float = 0.0
    high: float = 1.0
    classes: tuple[str, ...] = ()
    vocab_size: int | None = None
    block_size: int | None = None


@dataclass(frozen=True)
class Dataset:
    """Splits with their spec; `section` is the `[data]` section that makes the same data set again."""

    name: str
    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    tokenizer: str | None = None
    section: dict[str, Any] = field(default_factory=dict)

    def known_fields(self) -> dict[str, Any]:
        """The model settings that follow from the data: shapes and vocabulary."""
        if self.spec.kind == "image":
            return {"sample_shape": self.spec.sample_shape}
        return {"vocab_size": self.spec.vocab_size, "block_size": self.spec.block_size}

    def check(self, config: Config) -> None:
        """Raise `ConfigError` when a model of this config cannot take these examples.

        Whether a model is conditional is its own choice, so `classes` is no known field; but when it is, the
        data must have as many.
        """
        classes = getattr(config, "classes", None)
        if classes is not None and classes != len(self.spec.classes):
            have = (
                f"{len(self.spec.classes)} classes" if self.spec.classes else "no labels with known classes"
            )
            remedy = "leave it out, or give the data labels with the names of their classes"
            remedy = f"set model.classes to {len(self.spec.classes)}" if self.spec.classes else remedy
            raise ConfigError(
                f"got {classes}, and the data set `{self.name}` has {have}",
                where="model.classes",
                remedy=remedy,
            )
        for name, value in self.known_fields().items():
            have = getattr(config, name, value)
            if have != value:
                raise ConfigError(
                    f"the model has {have!r}, the data set `{self.name}` has {value!r}",
                    where=f"model.{name}",
                    remedy=f"leave model.{name} out of the recipe, or set it to {value!r}",
                )


def renamed(made: Dataset, name: str, source: str, section: dict[str, Any]) -> Dataset:
    """The same data set under another name, with where it came from and the section that makes it again."""
    spec = msgspec.structs.replace(made.spec, source=source)
    return replace(made, name=name, spec=spec, section=section)
