"""Reading a bundle: every byte is checked before any engine sees it.

Needs no torch and no ONNX tooling. What was checked is what is handed on: graphs as bytes, and the weights as
the mapped file itself, not its name. So a bundle that is replaced while an engine has it open changes nothing
for that engine.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep

import msgspec

from triptych.bundle import consistency, digest, document
from triptych.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    TOKENIZER,
    WEIGHTS,
    GraphRecord,
    Manifest,
    TextSampler,
    version_of,
)
from triptych.bundle.weights import Extent, Weights
from triptych.bundle.wire import external_tensors, operator_sets
from triptych.errors import BundleError, BundleNotFound, BundleRefused

MAX_MANIFEST_BYTES, MAX_NAME_BYTES = 16_000_000, 255
MAX_GRAPH_BYTES, MAX_TOKENIZER_BYTES = 4_000_000, 256_000_000  # our graphs take some 10 kB a layer
ATTEMPTS = 3
RENAMING_S = 0.01  # a bundle that is replaced is away for as long as one rename takes
AGAIN = "export the bundle again, or copy it again from its source"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every byte has been checked: where it lay, what it says, its weights, and its graphs by
    name."""

    folder: Path
    manifest: Manifest
    weights: Weights = field(repr=False)
    graphs: dict[str, bytes] = field(repr=False)
    tokenizer: str | None = field(default=None, repr=False)


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read and check the bundle in the folder `path`; one that is replaced meanwhile is read again.

    Raises: BundleNotFound when there is none; BundleRefused, naming file and reason, when a byte is not as
    written.
    """
    folder = as_folder(path)
    data = manifest_bytes(folder)
    for _ in range(ATTEMPTS):
        try:
            return read_files(folder, parse(folder, data))
        except BundleRefused:
            now = manifest_again(folder)
            if now == data:
                raise
            data = now
    return read_files(folder, parse(folder, data))


def manifest_again(folder: Path) -> bytes:
    """The bytes of a manifest that was there a moment ago, and may be away for an instant."""
    for _ in range(ATTEMPTS):
        with suppress(BundleError):
            return manifest_bytes(folder)
        sleep(RENAMING_S)
    return manifest_bytes(folder)


def as_folder(path: object) -> Path:
    """`path` as a folder's path. Raises `BundleNotFound` for what cannot be one."""
    try:
        folder = Path(path)  # type: ignore[arg-type]
        if folder.is_dir():
            return folder
        what = "there is no such folder"
    except (TypeError, ValueError, OSError) as error:
        what = f"it is no folder's path ({error})"
    where = str(path) if isinstance(path, Path) else repr(path)
    raise BundleNotFound(what, where=where[:200], valid="a folder written by `triptych export`")


def read_files(folder: Path, manifest: Manifest) -> Bundle:
    """Every file of a bundle, checked against its manifest."""
    try:
        check_names(folder, manifest)
    except OSError as error:
        raise unreadable(folder, error) from error
    weights = Weights(folder / WEIGHTS)
    check_digest(folder / WEIGHTS, weights.data, manifest)
    weights.release()
    limits = {graph.file: MAX_GRAPH_BYTES for graph in manifest.graphs} | {TOKENIZER: MAX_TOKENIZER_BYTES}
    contents: dict[str, bytes] = {}
    for name in manifest.files.keys() - {WEIGHTS}:
        if name in limits:
            contents[name] = content(folder / name, limits[name])
            check_digest(folder / name, contents[name], manifest)
        else:
            check_digest(folder / name, folder / name, manifest)
    if (version := version_of(manifest.graphs, manifest.files)) != manifest.version:
        problem = f"its version is {manifest.version}, that of its content {version}"
        raise BundleRefused(problem, where=str(folder / MANIFEST), remedy=AGAIN)
    graphs = {graph.name: contents[graph.file] for graph in manifest.graphs}
    ranges = set(weights.extents.values())
    for graph in manifest.graphs:
        check_graph(folder / graph.file, graphs[graph.name], graph, ranges)
    tokenizer = as_text(folder / TOKENIZER, contents[TOKENIZER]) if TOKENIZER in contents else None
    return Bundle(folder.resolve(), manifest, weights, graphs, tokenizer)


def content(file: Path, most_bytes: int) -> bytes:
    """The bytes of a file of a bundle, at most so many."""
    try:
        if file.stat().st_size > most_bytes:
            raise BundleRefused(f"it is larger than {most_bytes} bytes", where=str(file), remedy=AGAIN)
        return file.read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: OSError) -> BundleRefused:
    """The error for a file or folder that the system does not give."""
    return BundleRefused(f"it cannot be read ({error.strerror})", where=str(file), remedy=AGAIN)


def check_digest(file: Path, data: bytes | mmap.mmap | Path, manifest: Manifest) -> None:
    """Refuse a file whose bytes are not those the manifest was written for; `data` are the bytes, or where
    they are read in pieces and not kept."""
    try:
        found = digest.sha256_of_file(data) if isinstance(data, Path) else digest.sha256(data)
    except OSError as error:
        raise unreadable(file, error) from error
    if found != (expected := manifest.files[file.name].sha256):
        raise BundleRefused(
            f"its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…", where=str(file), remedy=AGAIN
        )


def as_text(file: Path, data: bytes) -> str:
    """The text of a UTF-8 file."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BundleRefused(f"it is not UTF-8 ({error})", where=str(file), remedy=AGAIN) from error


def manifest_bytes(folder: Path) -> bytes:
    """The bytes of a folder's manifest."""
    file = folder / MANIFEST
    try:
        if not file.is_file():
            raise BundleNotFound(
                "holds no manifest.json", where=str(folder), valid="a folder written by `triptych export`"
            )
        if file.is_symlink():
            raise BundleRefused("it is not a plain file", where=str(file), remedy=AGAIN)
    except OSError as error:
        raise unreadable(file, error) from error
    return content(file, MAX_MANIFEST_BYTES)


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the bundle at `path`, checked by itself. Raises `BundleNotFound`, `BundleRefused`."""
    folder = as_folder(path)
    return parse(folder, manifest_bytes(folder))


def parse(folder: Path, data: bytes) -> Manifest:
    """A folder's manifest: its version, its digest, and that it agrees with itself."""
    file = folder / MANIFEST
    check_version(file, data)
    if not digest.is_intact(data):
        raise BundleRefused("its bytes do not match the digest it carries", where=str(file), remedy=AGAIN)
    try:
        manifest = document.decode(data, Manifest)
    except ValueError as error:
        raise BundleRefused(f"it cannot be read ({error})", where=str(file), remedy=AGAIN) from error
    if problem := next(consistency.problems(manifest), ""):
        raise BundleRefused(problem, where=str(file), remedy=AGAIN)
    return manifest


def check_version(file: Path, data: bytes) -> None:
    """Refuse a newer format by its version, whose digest rules this reader cannot know."""

    class Versioned(msgspec.Struct):
        format_version: int

    try:
        version = msgspec.json.decode(data, type=Versioned).format_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleRefused(f"it is not a manifest ({error})", where=str(file), remedy=AGAIN) from error
    if version != FORMAT_VERSION:
        raise BundleRefused(
            f"format version {version} is unknown",
            where=str(file),
            valid=str(FORMAT_VERSION),
            remedy="update triptych",
        )


def check_names(folder: Path, manifest: Manifest) -> None:
    """Refuse files that are missing, not listed, not plain names, or not files."""
    needed = {WEIGHTS, *(graph.file for graph in manifest.graphs)}
    if isinstance(manifest.sampler, TextSampler):
        needed.add(TOKENIZER)
    listed = set(manifest.files)
    if unlisted := sorted(needed - listed):
        raise BundleRefused(
            f"it does not list {', '.join(unlisted)}", where=str(folder / MANIFEST), remedy=AGAIN
        )
    if unsafe := sorted(
        name
        for name in listed
        if name in ("", ".", "..", MANIFEST)
        or Path(name).name != name
        or not name.isprintable()
        or len(name.encode()) > MAX_NAME_BYTES
    ):
        raise BundleRefused(
            f"it lists {unsafe[0][:80]!r}", where=str(folder / MANIFEST), valid="names of files of the folder"
        )
    for name in sorted(listed):
        file = folder / name
        if file.is_symlink() or not file.is_file():
            problem = "it is missing" if not file.exists() else "it is not a plain file"
            raise BundleRefused(problem, where=str(file), remedy=AGAIN)
        if (size_bytes := file.stat().st_size) != manifest.files[name].size_bytes:
            expected = manifest.files[name].size_bytes
            raise BundleRefused(
                f"it has {size_bytes} bytes, the manifest says {expected}", where=str(file), remedy=AGAIN
            )
    if extra := sorted({entry.name for entry in folder.iterdir()} - listed - {MANIFEST}):
        raise BundleRefused(
            "the manifest does not list it", where=str(folder / extra[0]), remedy="move it out of the bundle"
        )


def check_graph(file: Path, data: bytes, record: GraphRecord, ranges: set[Extent]) -> None:
    """Refuse a graph in other operator sets than its record says, or with a tensor that is neither inside it
    nor exactly one tensor of the weights."""
    tensors = {(extent.offset, extent.size_bytes) for extent in ranges}
    try:
        outside, found = list(external_tensors(data)), operator_sets(data)
    except (ValueError, RecursionError) as error:
        raise BundleRefused(f"it is not an ONNX graph ({error})", where=str(file), remedy=AGAIN) from error
    if found != record.operator_sets:
        raise BundleRefused(
            f"it is in {found}", where=str(file), valid=f"the manifest's operator sets {record.operator_sets}"
        )
    for tensor in outside:
        at = f"bytes {tensor.offset} to {tensor.offset + tensor.size_bytes} of {tensor.location!r}"
        if tensor.location != WEIGHTS or (tensor.offset, tensor.size_bytes) not in tensors:
            raise BundleRefused(
                f"{tensor.name} points at {at}",
                where=str(file),
                valid=f"the byte range of a tensor in {WEIGHTS}",
            )
