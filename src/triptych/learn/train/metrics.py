"""`metrics.jsonl`: one line per logged step. All fields but `elapsed_s` are the same for the same recipe."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec

from triptych.errors import CheckpointError

Row = dict[str, Any]


class MetricsLog:
    """Appends rows to the file and keeps them as `history`."""

    def __init__(self, path: Path, *, size_bytes: int = 0) -> None:
        """Keep the first `size_bytes` of an existing file and cut off the rest."""
        kept = path.read_bytes()[:size_bytes] if size_bytes and path.exists() else b""
        try:
            self.history: list[Row] = [msgspec.json.decode(line) for line in kept.splitlines()]
        except msgspec.DecodeError as error:
            raise _changed(path, str(error)) from error
        if len(kept) < size_bytes:
            raise _changed(path, f"it has {len(kept)} bytes of the {size_bytes} that there were")
        self._file = path.open("r+b" if path.exists() else "wb", buffering=0)
        self._file.truncate(len(kept))
        self._file.seek(len(kept))

    def append(self, row: Row) -> None:
        """Write one line, at once."""
        self.history.append(row)
        line = msgspec.json.encode(row) + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> int:
        """Bring the file safely to disk; return its size in bytes, for the checkpoint."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _changed(path: Path, how: str) -> CheckpointError:
    return CheckpointError(
        f"is not as it was when the checkpoint was written: {how}",
        where=str(path),
        remedy="bring it back, or start anew in another folder",
    )
