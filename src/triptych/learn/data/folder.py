"""A folder of pictures as a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from triptych.errors import ConfigError, DataError
from triptych.learn.data.arrays import Binarize
from triptych.learn.data.dataset import Dataset, renamed
from triptych.learn.data.datasets import from_arrays
from triptych.learn.data.pixels import Channels, pixels

LARGEST = 4_096  # pixels; far beyond what these models draw
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


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
