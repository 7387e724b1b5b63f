"""Where calibrations are kept: the exporting machine's in the bundle, this one's in the user's cache.

A bundle may be read-only, and its digest covers every byte: so what `triptych calibrate` finds goes to a
file of its own, named by the bundle's digest and by the machine. It lies in `$TRIPTYCH_CACHE`, else in
`$XDG_CACHE_HOME/triptych`, else in `~/.cache/triptych`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from triptych.bundle import consistency
from triptych.bundle.manifest import Calibration, Manifest
from triptych.errors import DataError
from triptych.infer import machine

SET_CACHE = "set TRIPTYCH_CACHE to a folder that can be written"


def find(manifest: Manifest) -> Calibration | None:
    """What is known of the engines on this machine: kept by `keep`, else found at export."""
    try:
        kept = msgspec.json.decode(file(manifest).read_bytes(), type=Calibration)
    except (OSError, DataError, msgspec.DecodeError, UnicodeDecodeError):
        kept = Calibration()
    if any(consistency.of_calibration(kept, {graph.name for graph in manifest.graphs})):
        kept = Calibration()
    return next((found for found in (kept, manifest.calibration) if is_ours(found)), None)


def is_ours(calibration: Calibration) -> bool:
    """Whether it was made on such a processor, with the very engines that are installed here."""
    here = machine.versions()
    same = {package: calibration.versions.get(package) for package in here} == here
    return same and calibration.processor == machine.processor()


def keep(manifest: Manifest, calibration: Calibration) -> Path:
    """Keep the calibration of a bundle on this machine; returns its file. Raises `DataError`."""
    path = file(manifest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        with os.fdopen(handle, "wb") as out:
            out.write(msgspec.json.format(msgspec.json.encode(calibration), indent=2))
        os.replace(scratch, path)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise DataError(problem, where=str(path), remedy=SET_CACHE) from error
    return path


def file(manifest: Manifest) -> Path:
    """Where the calibration of a bundle on this machine is kept."""
    here = f"{machine.processor()} {machine.versions()}"
    name = f"{manifest.digest[:16]}-{hashlib.sha256(here.encode()).hexdigest()[:8]}.json"
    return folder() / "calibration" / name


def folder() -> Path:
    """The cache's folder. Raises `DataError` for a user without a home, as containers have them."""
    if own := os.environ.get("TRIPTYCH_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "triptych"
    except RuntimeError as error:
        raise DataError("this user has no home folder", where="cache", remedy=SET_CACHE) from error
