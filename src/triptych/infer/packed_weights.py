"""Packed weights on disk: packed once on a machine, mapped by every process that computes with them.

Kernels want matrices laid out anew. Each process would hold that copy in memory of its own, however many of
them map the same bundle. onnxruntime can write the copy beside an optimised graph, and map it from there; the
pages are then shared. Such a pair of files lies in a folder of the user's cache, named by everything it
depends on. It is checked whenever it is opened, and made anew when it is damaged.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import onnxruntime

from triptych.bundle.digest import sha256, sha256_of_file
from triptych.bundle.reader import Bundle
from triptych.bundle.wire import external_bytes
from triptych.infer import calibration_store, machine

GRAPH, WEIGHTS, SEAL = "graph.onnx", "weights.bin", "seal"
MIN_BYTES = 2**20  # of weights: below it, a process of its own is larger by far than its copy
KEPT_BYTES = 16 * 2**30  # of disk; beyond it, what was not opened for longest goes

Session = TypeVar("Session")

log = logging.getLogger(__name__)


class Packed(NamedTuple):
    """An optimised graph, and the folder in which its weights lie, packed and as they were."""

    graph: bytes
    folder: Path


def shared(
    bundle: Bundle, graph: str, write: Callable[[Path], object], open_: Callable[[Packed], Session]
) -> Session | None:
    """What `open_` makes of a graph of `bundle` with packed weights; `write(folder)` writes the pair where
    there is none.

    None where it would save next to nothing, or where the cache cannot be used; the log says so.
    """
    if external_bytes(bundle.graphs[graph]) < MIN_BYTES:
        return None
    try:
        entry = calibration_store.folder() / "packed" / key(bundle, graph)
        session = open_(read(entry) or made(entry, write))
        machine.give_back_memory()  # onnxruntime has packed them once more, to compare digests
        return session
    except Exception as error:  # onnxruntime's own errors share no base class
        told = (
            "%s: graph %s: this process packs weights for itself alone (%s); TRIPTYCH_CACHE names the folder"
        )
        log.warning(told, bundle.folder, graph, error)
        return None


def key(bundle: Bundle, graph: str) -> str:
    """The name of a graph's pair: another bundle, processor or onnxruntime packs otherwise."""
    engine = f"onnxruntime {onnxruntime.__version__} {onnxruntime.get_build_info()}"
    here = f"{bundle.manifest.digest} {graph} {machine.processor()} {engine}"
    return hashlib.sha256(here.encode()).hexdigest()[:32]


def read(entry: Path) -> Packed | None:
    """The pair in folder `entry` if it is there and whole, which marks it as used; or None."""
    try:
        if entry.stat().st_uid not in (0, os.geteuid()):
            log.warning("%s: not used, because another user wrote it", entry)
            return None
        wanted = (entry / SEAL).read_text("ascii")
        graph = (entry / GRAPH).read_bytes()
        if seal(graph, entry) != wanted:
            log.warning("%s: damaged, and made anew", entry)
            return None
    except (OSError, UnicodeDecodeError):
        return None
    with suppress(OSError):  # it may be read-only
        os.utime(entry)
    return Packed(graph, entry)


def made(entry: Path, write: Callable[[Path], object]) -> Packed:
    """A new pair in `entry`, unless another process made it while this one waited for its turn."""
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(entry.parent):
        if (found := read(entry)) is not None:
            return found
        scratch = entry.with_suffix(".partial")
        for left in (scratch, entry):
            shutil.rmtree(left, ignore_errors=True)
        make_room(entry.parent)
        scratch.mkdir(mode=0o700)
        try:
            write(scratch)
            graph = (scratch / GRAPH).read_bytes()
            (scratch / SEAL).write_text(seal(graph, scratch), "ascii")
            for file in scratch.iterdir():
                file.chmod(0o400)  # once mapped it may be removed, but never written over
            scratch.rename(entry)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return Packed(graph, entry)


def seal(graph: bytes, entry: Path) -> str:
    """The SHA-256 of both files."""
    return f"{sha256(graph)} {sha256_of_file(entry / WEIGHTS)}"


def make_room(folder: Path) -> None:
    """Remove what was not opened for longest, until the rest is small enough; processes that have it mapped
    keep it.
    """
    entries = sorted((e for e in folder.iterdir() if e.is_dir()), key=lambda e: e.stat().st_mtime)
    sizes = {entry: sum(file.stat().st_size for file in entry.iterdir()) for entry in entries}
    kept = sum(sizes.values())
    for entry, size_bytes in sizes.items():
        if kept <= KEPT_BYTES:
            return
        shutil.rmtree(entry, ignore_errors=True)
        kept -= size_bytes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the cache; the kernel lets go of it if this process dies."""
    import fcntl  # here, because Windows lacks it: there, each process packs for itself

    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
