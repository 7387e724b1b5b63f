"""Checkpoints: safetensors and JSON, whole or absent.

`checkpoints/step-00000100/` is written beside its final name, synced, and renamed. `checkpoints/last` and
`checkpoints/best` are links that are switched atomically, so at every moment each names a complete
checkpoint from which training can go on. Folders that neither names are removed, except the newest
`keep_last`. `state.json` carries the digest of every other file, and of itself: a checkpoint of which a byte
changed is refused.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from triptych.bundle.digest import is_intact, seal, sha256_of_file
from triptych.errors import CheckpointError
from triptych.learn.train.state import Tensors

FORMAT_VERSION = 2
_STATE = "state.json"
_VALID = "a checkpoint folder, such as RUN/checkpoints/last"
_REMEDY = "resume from checkpoints/best or an older step-* folder beside it"


def write(
    folder: Path, step: int, tensors: Tensors, facts: dict[str, Any], *, best_step: int, keep_last: int = 1
) -> Path:
    """Write the checkpoint of `step` under `folder`, and switch `last` to it and `best` to `best_step`'s."""
    final = folder / _name(step)
    scratch = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        for file, group in tensors.items():
            save_file({name: t.contiguous() for name, t in group.items()}, scratch / f"{file}.safetensors")
        digests = {file: sha256_of_file(scratch / f"{file}.safetensors") for file in sorted(tensors)}
        document = {"format_version": FORMAT_VERSION, "step": step, "files": digests, **facts, "digest": ""}
        (scratch / _STATE).write_bytes(seal(msgspec.json.format(msgspec.json.encode(document)) + b"\n"))
        for path in (*scratch.iterdir(), scratch):
            _sync(path)
        if final.exists():  # left by a run that died before it could switch to it
            shutil.rmtree(final)
        scratch.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot be written: {error}",
            where=str(final),
            remedy="make room; what was written before is whole, and --resume auto goes on from it",
        ) from error
    point(folder, step=step, best_step=best_step, keep_last=keep_last)
    return final


def point(folder: Path, *, step: int, best_step: int, keep_last: int = 1) -> None:
    """Make `last` and `best` name these steps, and remove all but them and the `keep_last` up to `step`."""
    for link, target in (("last", step), ("best", best_step)):
        if (folder / _name(target)).is_dir():
            fresh = folder / f".{link}.link"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(_name(target), target_is_directory=True)
            os.replace(fresh, folder / link)
    _sync(folder)
    keep = {os.readlink(folder / link) for link in ("last", "best") if (folder / link).is_symlink()}
    known = sorted(path.name for path in folder.glob("step-*") if path.name <= _name(step))
    keep.update(known[-keep_last:])
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in keep:
            shutil.rmtree(path)


def newest(folder: Path) -> Path | None:
    """The checkpoint to go on from: `last`, or the newest there is where that link is gone or names none."""
    known = sorted(path for path in folder.glob("step-*") if path.is_dir())
    return next((path for path in (folder / "last", *reversed(known)) if path.exists()), None)


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and facts of the checkpoint folder `path`."""
    if not path.is_dir():
        raise CheckpointError("there is no such folder", where=str(path), valid=f"`auto`, or {_VALID}")
    if not any(path.glob("*.safetensors")):
        raise CheckpointError("this is no checkpoint", where=str(path), valid=f"`auto`, or {_VALID}")
    try:
        state = (path / _STATE).read_bytes()
        facts = msgspec.json.decode(state)
        if (version := facts["format_version"]) != FORMAT_VERSION:
            raise CheckpointError(
                f"has format version {version}",
                where=str(path),
                valid=str(FORMAT_VERSION),
                remedy="resume with the Triptych that wrote it, or start anew in another folder",
            )
        changed = [] if is_intact(state) else [_STATE]
        files = {file: path / f"{file}.safetensors" for file in facts["files"]}
        changed += [file.name for name, file in files.items() if sha256_of_file(file) != facts["files"][name]]
        if changed:
            raise CheckpointError(
                f"is damaged: {', '.join(changed)} changed since written",
                where=str(path),
                remedy=_REMEDY,
            )
        return {name: load_file(file) for name, file in files.items()}, facts
    except (OSError, msgspec.DecodeError, SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"cannot be read: {type(error).__name__}: {error}",
            where=str(path),
            valid=_VALID,
            remedy=_REMEDY,
        ) from error


def difference(saved: Any, now: Any, where: str = "") -> list[str]:
    """Each setting in which two configurations differ, in words.

    >>> difference({"train": {"seed": 0}}, {"train": {"seed": 1}})
    ['train.seed is 0 in the checkpoint and 1 now']
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = sorted(saved.keys() | now.keys())
        return [d for k in keys for d in difference(saved.get(k), now.get(k), f"{where}.{k}".lstrip("."))]
    return [] if saved == now else [f"{where} is {saved!r} in the checkpoint and {now!r} now"]


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
