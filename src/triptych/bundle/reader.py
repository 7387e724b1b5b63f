"""Reading a bundle: every byte is checked before any engine sees it.

Needs no torch and no ONNX tooling. What was checked is what is handed on: graphs as bytes, and the weights
file, which is only ever replaced as a whole folder (see `writer`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from triptych.bundle import digest
from triptych.bundle.manifest import FORMAT_VERSION, MANIFEST, TOKENIZER, WEIGHTS, Manifest, TextSampler
from triptych.bundle.weights import Extent, extents
from triptych.bundle.wire import external_tensors
from triptych.errors import BundleNotFound, BundleRefused

MAX_MANIFEST_BYTES = 16_000_000
AGAIN = "export the bundle again, or copy it again from its source"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every byte has been checked: where it lies, what it says, and its graphs by name."""

    folder: Path
    manifest: Manifest
    graphs: dict[str, bytes] = field(repr=False)
    tokenizer: str | None = field(default=None, repr=False)

    @property
    def weights(self) -> Path:
        """The one weights file."""
        return self.folder / WEIGHTS


def read(path: str | os.PathLike[str]) -> Bundle:
    """Read and check the bundle in the folder `path`.

    Raises: BundleNotFound when there is none; BundleRefused, naming file and reason, when a byte is not as
    written.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    check_names(folder, manifest)
    ranges: set[Extent] = set()
    contents: dict[str, bytes] = {}
    for name, record in manifest.files.items():
        file = folder / name
        if name == WEIGHTS:
            ranges = set(extents(file).values())
            found = digest.sha256_of_file(file)
        else:
            contents[name] = file.read_bytes()
            found = digest.sha256(contents[name])
        if found != record.sha256:
            raise BundleRefused(
                f"its SHA-256 is {found[:12]}…, the manifest says {record.sha256[:12]}…",
                where=str(file),
                remedy=AGAIN,
            )
    graphs = {graph.name: contents[graph.file] for graph in manifest.graphs}
    for graph in manifest.graphs:
        check_graph(folder / graph.file, graphs[graph.name], ranges)
    tokenizer = contents[TOKENIZER].decode() if TOKENIZER in contents else None
    return Bundle(folder.resolve(), manifest, graphs, tokenizer)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder, its own digest and version checked."""
    file = folder / MANIFEST
    if not folder.is_dir() or not file.is_file():
        what = "holds no manifest.json" if folder.is_dir() else "there is no such folder"
        raise BundleNotFound(what, where=str(folder), valid="a folder written by `triptych export`")
    if file.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleRefused(f"it is larger than {MAX_MANIFEST_BYTES} bytes", where=str(file), remedy=AGAIN)
    data = file.read_bytes()
    check_version(file, data)
    if not digest.is_intact(data):
        raise BundleRefused("its bytes do not match the digest it carries", where=str(file), remedy=AGAIN)
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleRefused(f"it cannot be read ({error})", where=str(file), remedy=AGAIN) from error


def check_version(file: Path, data: bytes) -> None:
    """Refuse a newer format by its version, whose digest rules this reader cannot know."""

    class Versioned(msgspec.Struct):
        format_version: int

    try:
        version = msgspec.json.decode(data, type=Versioned).format_version
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
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
        name for name in listed if name in ("", ".", "..", MANIFEST) or Path(name).name != name
    ):
        raise BundleRefused(
            f"it lists {unsafe[0]!r}", where=str(folder / MANIFEST), valid="names of files inside the folder"
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


def check_graph(file: Path, data: bytes, ranges: set[Extent]) -> None:
    """Refuse a graph with a tensor that is neither inside it nor exactly one tensor of the weights."""
    tensors = {(extent.offset, extent.size_bytes) for extent in ranges}
    try:
        outside = list(external_tensors(data))
    except (ValueError, RecursionError) as error:
        raise BundleRefused(f"it is not an ONNX graph ({error})", where=str(file), remedy=AGAIN) from error
    for tensor in outside:
        at = f"bytes {tensor.offset} to {tensor.offset + tensor.size_bytes} of {tensor.location!r}"
        if tensor.location != WEIGHTS or (tensor.offset, tensor.size_bytes) not in tensors:
            raise BundleRefused(
                f"{tensor.name} points at {at}",
                where=str(file),
                valid=f"the byte range of a tensor in {WEIGHTS}",
            )
