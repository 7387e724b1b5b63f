"""Getting a data set once: ordered sources, a lock, an atomic move into the cache, a digest of what arrived.

The cache is `$TRIPTYCH_CACHE`, or `~/.cache/triptych`. A folder is either whole and of the right digest, or
absent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from rich.console import Console

from triptych.errors import DataError


class Unavailable(Exception):
    """A source cannot deliver here and now; the next one is tried."""


@dataclass(frozen=True, slots=True)
class Source:
    """One way to get a data set: `get(folder)` fills an empty folder with the final files or raises
    `Unavailable`.
    """

    name: str
    get: Callable[[Path], None]


def cache_folder() -> Path:
    """Where fetched data sets lie."""
    return Path(os.environ.get("TRIPTYCH_CACHE") or Path.home() / ".cache" / "triptych")


def folder_digest(folder: Path) -> str:
    """SHA-256 over the names and the SHA-256s of the files directly in `folder`, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def cached(name: str, digest: str, sources: Sequence[Source], *, remedy: str) -> Path:
    """The folder of data set `name`, from the cache or from the first source that delivers `digest`.

    Raises:
        DataError: nothing delivered; the message lists what was tried and ends with `remedy`.
    """
    cache = cache_folder()
    folder = cache / name
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(str(cache / f"{name}.lock")):
            if folder.is_dir() and folder_digest(folder) == digest:
                return folder
            return _fetch(folder, digest, sources, remedy)
    except OSError as error:
        raise DataError(f"cannot be used: {error}", where=str(cache), remedy="set TRIPTYCH_CACHE") from error


def _fetch(folder: Path, digest: str, sources: Sequence[Source], remedy: str) -> Path:
    tried = []
    console = Console(file=sys.stderr)
    for source in sources:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            arrived = Path(scratch) / folder.name
            arrived.mkdir()
            try:
                with console.status(f"{folder.name}: fetching by {source.name} ..."):
                    source.get(arrived)
            except Unavailable as reason:
                tried.append(f"{source.name} ({reason})")
                continue
            if (got := folder_digest(arrived)) != digest:
                tried.append(f"{source.name} (content has SHA-256 {got[:12]}, expected {digest[:12]})")
                continue
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(arrived, folder)
            console.print(f"{folder.name}: fetched by {source.name} into {folder}", highlight=False)
            return folder
    raise DataError(
        f"not in the cache ({folder}), and no source delivered it: " + "; ".join(tried),
        where=folder.name,
        remedy=remedy,
    )
