"""The data sets by name. Each call gives a `Dataset`; each argument is also a key of a recipe's `[data]`
section.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from triptych.errors import ConfigError, DataError
from triptych.learn.data import sources
from triptych.learn.data.arrays import Binarize, array_split, as_examples, content_digest, parts
from triptych.learn.data.dataset import Dataset, DataSpec, renamed
from triptych.learn.data.idx import read_idx_folder
from triptych.learn.data.labels import as_labels
from triptych.learn.data.pixels import Channels, pixels
from triptych.learn.data.split import WindowSplit
from triptych.learn.data.text import Coding, bpe_tokenizer, character_tokenizer, cut, encode, tokens_at_most

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
LARGEST = 4_096  # pixels; far beyond what these models draw
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


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


def from_folder(
    path: str,
    *,
    size: int | None = None,
    channels: Channels = 3,
    binarize: Binarize = "none",
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Pictures under a folder, without hidden files; when all lie in subfolders, the first level of these
    gives the classes.

    Args:
        size: side in pixels; every picture is scaled and cut to its middle square. None when all have one
            size already.
        channels: 1 for grey, 3 for colour.
    """
    if not path:
        raise ConfigError(
            "is missing", where="data.path", valid="a folder of pictures", remedy="set data.path=FOLDER"
        )
    if not Path(path).is_dir():
        raise DataError("there is no such folder", where=path, valid="a folder of pictures")
    if size is not None and not 1 <= size <= LARGEST:
        raise ConfigError(f"got {size}", where="data.size", valid=f"1 to {LARGEST}, or nothing")
    files = sorted(file for file in Path(path).rglob("*") if _is_picture(file.relative_to(path)))
    if not files:
        raise DataError(
            "there are no pictures in this folder",
            where=path,
            valid=f"files ending in {', '.join(_PICTURES)}",
        )
    images = [_picture(file, size, channels) for file in files]
    if len(shapes := {image.shape for image in images}) > 1:
        raise DataError(
            f"pictures of {len(shapes)} sizes", where=path, remedy="set `size` to scale them to one"
        )
    owners = [file.relative_to(path).parts[0] for file in files if file.parent != Path(path)]
    labels = owners if len(owners) == len(files) and len(set(owners)) > 1 else None
    made = from_arrays(
        np.stack(images), labels, binarize=binarize, validation=validation, test=test, seed=seed
    )
    section = {**made.section, "name": "folder", "path": path, "size": size, "channels": channels}
    return renamed(made, "folder", f"{len(files)} pictures of {path}", section)


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


def from_text(
    text: str | Sequence[str] | None = None,
    *,
    path: str | None = None,
    tokenizer: Coding = "characters",
    vocab_size: int | None = None,
    block_size: int = 64,
    validation: float = 0.05,
    test: float = 0.05,
) -> Dataset:
    """One text or several, or the UTF-8 file at `path`; each is cut into training, validation and test
    pieces. `vocab_size` is for `bpe`; without it up to 1,024 tokens.
    """
    texts = _texts(text, path)
    largest = tokens_at_most(tokenizer, vocab_size)
    if block_size < 1:
        raise ConfigError(f"got {block_size!r}", where="data.block_size", valid="at least 1")
    pieces = cut(texts, (validation, test), where=path or "text")
    if not any(texts):
        raise DataError("no characters are too few", where=path or "text", remedy="give a text")
    coder = (
        character_tokenizer("".join(texts))
        if tokenizer == "characters"
        else bpe_tokenizer(pieces[0], largest)
    )
    train, held_out, last = (WindowSplit(encode(coder, "".join(piece)), block_size) for piece in pieces)
    if len(train) < 1 or len(held_out.tokens) < 2 or len(last.tokens) < 2:
        raise DataError(
            f"{sum(map(len, texts))} characters are too few",
            where=path or "text",
            remedy=f"give more text, or a block_size below {block_size}",
        )
    if coder.get_vocab_size() < 2:
        raise DataError(
            "the text is one character over and over",
            where=path or "text",
            remedy="give a text to learn from",
        )
    spec = DataSpec(
        kind="text",
        sample_shape=(block_size,),
        source=f"the text of {path}" if path else "text in memory",
        digest=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        vocab_size=coder.get_vocab_size(),
        block_size=block_size,
    )
    section: dict[str, Any] = {
        "name": "text",
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "block_size": block_size,
        "validation": validation,
        "test": test,
    }
    if path:
        section["path"] = path
    return Dataset("text", spec, train, held_out, last, tokenizer=coder.to_str(), section=section)


def _texts(text: str | Sequence[str] | None, path: str | None) -> list[str]:
    if (text is None) == (path is None):
        raise ConfigError("give a text or a path, one of the two", where="from_text")
    if path is not None:
        try:
            text = Path(path).read_text("utf-8-sig")  # a byte order mark is no part of the text
        except UnicodeDecodeError as error:
            remedy = f"convert it, for example with `iconv -t UTF-8 {path}`"
            raise DataError(
                f"cannot be read: {error}", where=path, valid="a UTF-8 text file", remedy=remedy
            ) from error
        except OSError as error:
            raise DataError(f"cannot be read: {error}", where=path, valid="a UTF-8 text file") from error
    return [text] if isinstance(text, str) else list(text or ())


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


def _is_picture(file: Path) -> bool:
    """By its name; what is hidden (`._x.png` from a Mac) is none."""
    return file.suffix.lower() in _PICTURES and not any(part.startswith(".") for part in file.parts)


def _picture(file: Path, size: int | None, channels: Channels) -> np.ndarray:
    try:
        with Image.open(file) as picture:
            return pixels(picture, size=size, channels=channels, where=str(file))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"not a readable picture: {error}",
            where=str(file),
            remedy="remove it, or save it anew"
            + ", smaller" * isinstance(error, Image.DecompressionBombError),
        ) from error
