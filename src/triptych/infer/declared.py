"""Does a graph take and give what its manifest declares? Asked when an engine opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from triptych.bundle.manifest import TensorSpec
from triptych.errors import BundleRefused


class Found(NamedTuple):
    """An input or output as a library reads it from the graph; a size that may vary is no integer."""

    name: str
    dtype: str
    shape: Sequence[object]


def check_declared(file: str, specs: Sequence[TensorSpec], found: Sequence[Found]) -> None:
    """Refuse a graph whose inputs or outputs are not those the manifest declares."""
    if [spec.name for spec in specs] != [value.name for value in found]:
        names = ", ".join(value.name for value in found)
        raise BundleRefused(
            f"it has {names}", where=file, valid=f"the manifest's {', '.join(spec.name for spec in specs)}"
        )
    for spec, value in zip(specs, found, strict=True):
        sizes = zip(spec.shape, value.shape, strict=False)
        fits = len(spec.shape) == len(value.shape) and not any(
            isinstance(size, int) and isinstance(other, int) and size != other for size, other in sizes
        )
        if spec.dtype != value.dtype or not fits:
            raise BundleRefused(
                f"{spec.name} is {value.dtype} of shape {tuple(value.shape)}",
                where=file,
                valid=f"the manifest's {spec.dtype} of shape {spec.shape}",
            )
