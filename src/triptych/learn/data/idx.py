"""The IDX format of MNIST and its relatives: two zero bytes, a type, the number of axes, the sizes, the
values.

Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", section "FILE FORMATS".
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from triptych.errors import DataError

_UINT8 = 0x08
_PARTS = {
    "train images": "train-images-idx3-ubyte",
    "train labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}

Array = np.ndarray


def read_idx(path: Path) -> Array:
    """The unsigned bytes of an IDX file, plain or gzipped, in the shape its header gives."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8:
        raise DataError(
            f"starts with {data[:4].hex(' ')}",
            where=str(path),
            valid="an IDX file of unsigned bytes (00 00 08 and the number of axes)",
        )
    axes, start = data[3], 4 + 4 * data[3]
    shape = struct.unpack(f">{axes}I", data[4:start]) if len(data) >= start else ()
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"the header says {axes} axes of sizes {shape}, the file has {len(data)} bytes",
            where=str(path),
            remedy="the file is truncated: fetch it again",
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_idx_folder(folder: Path) -> dict[str, Array]:
    """The four parts of an MNIST-like folder by name; `.` for `-` before `idx` and a `.gz` ending are
    both taken.
    """
    return {part: read_idx(_find(folder, name)) for part, name in _PARTS.items()}


def _find(folder: Path, name: str) -> Path:
    for spelling in (name, name.replace("-idx", ".idx")):
        for ending in ("", ".gz"):
            if (path := folder / (spelling + ending)).is_file():
                return path
    raise DataError(
        f"there is no `{name}` or `{name}.gz`",
        where=str(folder),
        valid="a folder with the four IDX files of an MNIST-like set",
    )
