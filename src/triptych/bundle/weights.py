"""The one weights file: mapped, and its header read: where each tensor's bytes lie.

Format: 8 bytes little-endian header length N, N bytes of JSON, then the tensors. Read here rather than by the
`safetensors` package because a graph's external data is compared with absolute byte ranges.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from triptych.bundle import document
from triptych.errors import BundleRefused

if TYPE_CHECKING:
    import numpy as np

MAX_HEADER_BYTES = 16_000_000  # some hundred thousand tensors
MAX_AXES = 64  # numpy's own limit

ITEM_SIZES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


NUMPY_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


class Described(msgspec.Struct, frozen=True):
    """A tensor as the header has it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Extent(NamedTuple):
    """A tensor in the file: its type, shape, absolute offset and length in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


class Weights:
    """The weights file, opened once and mapped: what was checked is what is computed with, even when another
    file takes its name or its folder is removed.

    Pages come from the file, so the processes that map it share them.

    Raises: BundleRefused when the file cannot be read, or its header does not describe it exactly.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise refused(path, f"it cannot be mapped ({error})") from error
        self.extents = parse(path, self.data)

    def array(self, extent: Extent) -> np.ndarray:
        """A tensor of the file, neither copied nor writable. Raises `BundleRefused` for types numpy lacks."""
        import numpy as np  # here, because the node reads manifests without it

        if extent.dtype not in NUMPY_TYPES:
            raise refused(self.path, f"no engine here reads {extent.dtype}")
        return np.ndarray(extent.shape, np.dtype(NUMPY_TYPES[extent.dtype]), self.data, extent.offset)

    @property
    def address(self) -> int:
        """Where the file's first byte is in this process's memory."""
        import numpy as np

        return int(np.frombuffer(self.data, np.uint8).ctypes.data)

    def release(self) -> None:
        """Tell the system that the pages are not needed in memory for now; they come back when touched."""
        self.data.madvise(mmap.MADV_DONTNEED)


def extents(path: Path) -> dict[str, Extent]:
    """Where each tensor of a safetensors file lies. Raises `BundleRefused` as `Weights` does."""
    return Weights(path).extents


def parse(path: Path, data: mmap.mmap) -> dict[str, Extent]:
    """Where each tensor lies.

    Raises: BundleRefused when the header is truncated, too large, not JSON, or does not describe the file
    exactly.
    """
    size_bytes = len(data)
    length = int.from_bytes(data[:8], "little")
    if size_bytes < 8 or length > min(MAX_HEADER_BYTES, size_bytes - 8):
        most = min(MAX_HEADER_BYTES, max(0, size_bytes - 8))
        raise refused(path, f"the header says it has {length} bytes, of up to {most} that it can have")
    try:
        described = document.decode(data[8 : 8 + length], dict[str, msgspec.Raw])
        found = {
            name: extent(document.decode(bytes(tensor), Described), start=8 + length)
            for name, tensor in described.items()
            if name != "__metadata__"
        }
    except ValueError as error:
        raise refused(path, f"the header cannot be read ({error})") from error
    end = 8 + length
    for name, tensor in sorted(found.items(), key=lambda item: (item[1].offset, item[1].size_bytes)):
        if tensor.offset != end:
            raise refused(path, f"tensor {name} begins at byte {tensor.offset} and not at {end}")
        end += tensor.size_bytes
    if end != size_bytes:
        raise refused(path, f"the tensors end at byte {end}, the file at {size_bytes}")
    return found


def extent(described: Described, start: int) -> Extent:
    """One entry of the header, checked against itself."""
    dtype, shape, (begin, end) = described.dtype, described.shape, described.data_offsets
    if dtype not in ITEM_SIZES:
        raise ValueError(f"{dtype[:80]!r} is not one of {', '.join(ITEM_SIZES)}")
    if len(shape) > MAX_AXES or min((*shape, begin, end)) < 0:
        raise ValueError(f"sizes must be up to {MAX_AXES} integers of 0 or more")
    if end - begin != ITEM_SIZES[dtype] * math.prod(shape):
        raise ValueError(f"{dtype} of shape {shape} does not take {end - begin} bytes")
    return Extent(dtype, shape, start + begin, end - begin)


def refused(path: Path, problem: str) -> BundleRefused:
    """The error for a safetensors file that is not whole."""
    return BundleRefused(
        problem, where=str(path), remedy="export the bundle again, or copy it again from its source"
    )
