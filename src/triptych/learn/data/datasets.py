"""The data sets by name. Each call gives a `Dataset`; each argument is also a key of a recipe's `[data]`
section.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from triptych.learn.data import sources
from triptych.learn.data.arrays import Binarize, array_split, as_examples, content_digest, parts
from triptych.learn.data.dataset import Dataset, DataSpec, renamed
from triptych.learn.data.idx import read_idx_folder
from triptych.learn.data.labels import as_labels
from triptych.learn.data.plain_text import from_text
from triptych.learn.data.text import Coding

_FASHION = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def fashion_mnist(
    *, path: str | None = None, binarize: Binarize = "none", validation: float = 1 / 12, seed: int = 0
) -> Dataset:
    """Fashion-MNIST: 60,000 + 10,000 grey pictures of clothes, 28 x 28, ten classes (Xiao et al. 2017,
    1708.07747).

    The 10,000 are the test split; `validation` is the share of the 60,000 kept from training (5,000).
    """
    folder = Path(path) if path else sources.fashion_mnist_folder()
    return _idx("fashion_mnist", folder, _FASHION, binarize, validation, seed, path)


def from_idx(path: str, *, binarize: Binarize = "none", validation: float = 1 / 12, seed: int = 0) -> Dataset:
    """Any MNIST-like folder of four IDX files, plain or gzipped."""
    return _idx("idx", Path(path), (), binarize, validation, seed, path)


def digits(
    *, binarize: Binarize = "none", validation: float = 0.1, test: float = 0.1, seed: int = 0
) -> Dataset:
    """1,797 handwritten digits, 8 x 8, inside scikit-learn: needs no download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.round(bunch.images / 16 * 255).astype(np.uint8)[:, None]
    made = from_arrays(x, bunch.target, binarize=binarize, validation=validation, test=test, seed=seed)
    section = {"name": "digits", "binarize": binarize, "validation": validation, "test": test, "seed": seed}
    return renamed(made, "digits", "handwritten digits of scikit-learn, 1,797 of 8 x 8", section)


def from_arrays(
    x: Any,
    labels: Any = None,
    *,
    classes: Sequence[str] | None = None,
    binarize: Binarize = "none",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Examples in memory: uint8 from 0 to 255 or floats from 0 to 1, shape (N, *sample_shape).

    Args:
        labels: one per example: integers from 0 without gaps, or names of classes, which are then sorted.
        classes: the names of all classes in order, when the labels alone do not tell.
    """
    examples = as_examples(x, where="data")
    targets, names = as_labels(labels, len(examples), where="data", classes=classes)
    indices = parts(len(examples), (validation, test), seed, where="data")
    digest = content_digest(examples, targets)
    spec = DataSpec(
        kind="image",
        sample_shape=tuple(examples.shape[1:]),
        source="arrays in memory",
        digest=digest,
        classes=names,
    )
    train, held_out, last = (
        array_split(examples[i], None if targets is None else targets[i], binarize, seed + part)
        for part, i in enumerate(indices)
    )
    section = {"name": "arrays", "binarize": binarize, "validation": validation, "test": test, "seed": seed}
    return Dataset("arrays", spec, train, held_out, last, section=section)


def shakespeare(
    *,
    tokenizer: Coding = "characters",
    vocab_size: int | None = None,
    block_size: int = 64,
    validation: float = 0.05,
    test: float = 0.05,
) -> Dataset:
    """42 works of Shakespeare (Project Gutenberg's, by the `shakespeare` 0.6 package): 5,057,198 ASCII
    characters.

    Not the 1.1 MB "tiny" file: numbers for the two cannot be compared. Each work is cut into its own
    training, validation and test piece. `vocab_size` is for `bpe`; without it up to 1,024 tokens.
    """
    works = sorted(sources.shakespeare_folder().iterdir())
    made = from_text(
        [work.read_text("ascii") for work in works],
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        block_size=block_size,
        validation=validation,
        test=test,
    )
    source = (
        "42 works of Shakespeare, Project Gutenberg's, from the package shakespeare 0.6; 5,057,198 characters"
    )
    return renamed(made, "shakespeare", source, {**made.section, "name": "shakespeare"})


def _idx(
    name: str,
    folder: Path,
    classes: tuple[str, ...],
    binarize: Binarize,
    validation: float,
    seed: int,
    path: str | None,
) -> Dataset:
    raw = read_idx_folder(folder)
    where = str(folder)
    x, x_test = (as_examples(raw[f"{part} images"][:, None], where=where) for part in ("train", "test"))
    top = max(int(raw[f"{part} labels"].max(initial=0)) for part in ("train", "test"))
    classes = classes or tuple(map(str, range(top + 1)))
    y, y_test = (
        as_labels(raw[f"{p} labels"], len(e), where=where, classes=classes)[0]
        for p, e in (("train", x), ("test", x_test))
    )
    assert y is not None
    assert y_test is not None
    kept, held_out = parts(len(x), (validation,), seed, where=where)
    spec = DataSpec(
        kind="image",
        sample_shape=tuple(x.shape[1:]),
        source=f"{name}, {len(x) + len(x_test):,} pictures in IDX files",
        digest=content_digest(x, y, x_test, y_test),
        classes=classes,
    )
    section = {"name": name, "binarize": binarize, "validation": validation, "seed": seed}
    if path:
        section["path"] = path
    return Dataset(
        name,
        spec,
        array_split(x[kept], y[kept], binarize, seed),
        array_split(x[held_out], y[held_out], binarize, seed + 1),
        array_split(x_test, y_test, binarize, seed + 2),
        section=section,
    )
