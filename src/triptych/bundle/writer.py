"""Writing a bundle: whole or not at all.

Files are written to a folder beside the destination and synced; then the folder takes the destination's name.
What was there before is moved aside first and removed last, so a reader sees the old bundle, or for an
instant none, or the new one, and never a mixture.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from triptych.bundle import digest
from triptych.bundle.manifest import MANIFEST, FileRecord, Manifest, version_of
from triptych.errors import ExportError


def write(destination: Path, fill: Callable[[Path], Manifest]) -> Path:
    """Write a bundle to `destination`.

    Args:
        destination: a new folder, an empty one, or an earlier bundle, which is replaced.
        fill: puts every file but the manifest into the folder it is given, and returns the manifest; `files`,
            `version` and `digest` are added here.

    Raises: ExportError when `destination` is something else, or cannot be written.
    """
    destination = destination.absolute()
    check_destination(destination)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(
            tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent)
        )
    except OSError as error:
        raise ExportError(f"cannot be written ({error})", where=str(destination)) from error
    try:
        scratch.chmod(0o755)
        (scratch / MANIFEST).write_bytes(serialise(complete(fill(scratch), scratch)))
        for path in scratch.iterdir():
            path.chmod(0o644)  # safetensors writes for the owner alone
        for path in (*scratch.iterdir(), scratch):
            sync(path)
        replace(scratch, destination)
    except OSError as error:
        raise ExportError(f"cannot be written ({error})", where=str(destination)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return destination


def check_destination(destination: Path) -> None:
    """Refuse to write over anything but an empty folder or an earlier bundle, which may be damaged."""
    try:
        if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
            raise ExportError(
                "it is not a folder", where=str(destination), valid="a new folder, or a bundle to replace"
            )
        strangers = strangers_in(destination) if destination.exists() else []
    except OSError as error:
        raise ExportError(f"cannot be read ({error.strerror})", where=str(destination)) from error
    if strangers:
        problem = f"the folder holds something that is not a bundle's: {strangers[0]!r}"
        remedy = "choose another folder, or empty this one"
        raise ExportError(problem, where=str(destination), remedy=remedy)


def strangers_in(folder: Path) -> list[str]:
    """The names of what lies in `folder` and is no file of a bundle."""
    own = files_of_bundle(folder / MANIFEST)
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.name not in own or entry.is_symlink() or not entry.is_file()
    )


def files_of_bundle(manifest: Path) -> set[str]:
    """The names of a bundle's files by its manifest, itself included; none if it is no bundle's manifest.

    Its digest need not hold: a damaged bundle may be replaced.
    """

    class Listing(msgspec.Struct):
        format_version: int
        files: dict[str, Any]

    if not manifest.is_file():
        return set()
    try:
        listing = msgspec.json.decode(manifest.read_bytes(), type=Listing)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return set()
    return {MANIFEST, *listing.files}


def complete(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with every file of `folder`, and the version that follows from weights and graphs."""
    files = {
        path.name: FileRecord(size_bytes=path.stat().st_size, sha256=digest.sha256_of_file(path))
        for path in sorted(folder.iterdir())
    }
    version = version_of(manifest.graphs, files)
    return msgspec.structs.replace(manifest, files=files, version=version, digest="")


def serialise(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: indented JSON that ends with its own digest."""
    return digest.seal(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def replace(scratch: Path, destination: Path) -> None:
    """Give the folder `scratch` the name `destination`, if only a bundle lies there now, too."""
    check_destination(destination)
    if destination.exists():
        old = scratch.with_suffix(".old")
        destination.rename(old)
        try:
            scratch.rename(destination)
        except OSError:
            old.rename(destination)
            raise
        shutil.rmtree(old)
    else:
        scratch.rename(destination)
    sync(destination.parent)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
