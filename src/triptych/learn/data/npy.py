"""NumPy's own files as data sets."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from triptych.errors import ConfigError, DataError, nearest
from triptych.learn.data.arrays import Binarize
from triptych.learn.data.dataset import Dataset, renamed
from triptych.learn.data.datasets import from_arrays

Array = np.ndarray
EXAMPLES = ("x", "images", "data", "x_train", "arr_0")
LABELS = ("y", "labels", "targets", "y_train", "arr_1")


def from_npy(
    path: str,
    *,
    examples: str | None = None,
    labels: str | None = None,
    classes: Sequence[str] | None = None,
    binarize: Binarize = "none",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """The array in a `.npy` file, or the arrays in a `.npz` file; see `from_arrays` for what they may hold.

    Args:
        examples: the key of the examples in an `.npz`; by default its only array, or the first there is of
            `EXAMPLES`.
        labels: the key of the labels in an `.npz`; by default the first there is of `LABELS`, if any. Beside
            a `.npy` it is the path of another `.npy`.

    Raises:
        DataError: the file is missing, damaged, or holds Python objects; no array has the key.
    """
    if Path(path).suffix == ".npz":
        x, y = _from_npz(path, examples, labels)
    else:
        if examples is not None:
            raise ConfigError(
                f"got {examples!r}, and {path} holds one array without a name",
                where="data.examples",
                valid="nothing for a .npy file",
            )
        x, y = _read(path), None if labels is None else _read(labels)
    made = from_arrays(x, y, classes=classes, binarize=binarize, validation=validation, test=test, seed=seed)
    given = {"path": path, "examples": examples, "labels": labels, "classes": classes}
    section = {**made.section, "name": "npy", **{k: v for k, v in given.items() if v is not None}}
    return renamed(made, "npy", f"{len(x):,} arrays of {path}", section)


def _from_npz(path: str, examples: str | None, labels: str | None) -> tuple[Array, Array | None]:
    with _opened(path) as archive:
        if isinstance(archive, np.ndarray):
            raise DataError(
                "holds one array", where=path, valid="a .npz file", remedy="let its name end in .npy"
            )
        names = list(archive.files)
        key = _key(examples, "examples", names, EXAMPLES, path)
        if key is None:
            raise DataError(
                "it is not clear which of its arrays holds the examples",
                where=path,
                valid=", ".join(names) or "at least one array",
                remedy="set `examples` to its key",
            )
        label_key = _key(labels, "labels", [name for name in names if name != key], LABELS, path)
        return archive[key], None if label_key is None else archive[label_key]


def _key(
    wanted: str | None, setting: str, names: Sequence[str], usual: Sequence[str], path: str
) -> str | None:
    """The key that was asked for, or the usual one; a lone array needs no name to be the examples."""
    if wanted is None:
        alone = names[0] if setting == "examples" and len(names) == 1 else None
        return next((name for name in usual if name in names), alone)
    if wanted not in names:
        raise DataError(
            f"has no array {wanted!r} for the {setting}",
            where=path,
            valid=", ".join(names),
            remedy=nearest(wanted, names),
        )
    return wanted


def _read(path: str) -> Array:
    with _opened(path) as loaded:
        if isinstance(loaded, np.ndarray):
            return loaded
        raise DataError(
            "holds several arrays", where=path, valid="a .npy file", remedy="let its name end in .npz"
        )


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """What `numpy.load` gives; Python objects are refused, because to read them is to run code."""
    try:
        with open(path, "rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK")):
                raise ValueError("it does not begin as one does")
            file.seek(0)
            yield np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"cannot be read: {error}", where=path, valid="a .npy or .npz file of numbers"
        ) from error
