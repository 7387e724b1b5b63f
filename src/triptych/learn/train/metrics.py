"""`metrics.jsonl`: one line per logged step. All fields but `elapsed_s` are the same for the same recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from triptych.learn.models.base import Terms

Row = dict[str, Any]


class Meter:
    """Means of one player's terms since the last reset, summed on the device: no number leaves it in
    between.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.names: tuple[str, ...] = ()
        self.count, self.updates = 0, 0
        self.sums: Tensor | None = None
        self.norms: Tensor | None = None

    def add(self, terms: Terms) -> None:
        """Count one batch's terms."""
        self.names = tuple(terms.named)
        values = torch.stack([terms.total.detach(), *(v.detach() for v in terms.named.values())]).float()
        self.sums = values if self.sums is None else self.sums.add_(values)
        self.count += 1

    def add_norm(self, norm: Tensor) -> None:
        """Count one update's gradient norm."""
        self.norms = norm.clone() if self.norms is None else self.norms.add_(norm)
        self.updates += 1

    def finite(self) -> bool:
        """Whether every term and every gradient norm so far was a number."""
        return all(bool(t.isfinite().all()) for t in (self.sums, self.norms) if t is not None)

    def means(self) -> tuple[dict[str, float], float]:
        """Mean of every named term (`total` when the model names none), and of the gradient norm."""
        assert self.sums is not None
        assert self.norms is not None
        total, *named = (self.sums / self.count).tolist()
        terms = dict(zip(self.names, named, strict=True)) or {"total": total}
        return terms, float(self.norms) / self.updates


class MetricsLog:
    """Appends rows to the file and keeps them as `history`."""

    def __init__(self, path: Path, *, size_bytes: int = 0) -> None:
        """Keep the first `size_bytes` of an existing file and cut off the rest."""
        kept = path.read_bytes()[:size_bytes] if size_bytes else b""
        self.history: list[Row] = [msgspec.json.decode(line) for line in kept.splitlines()]
        self._file = path.open("r+b" if path.exists() else "wb", buffering=0)
        self._file.truncate(len(kept))
        self._file.seek(len(kept))

    def append(self, row: Row) -> None:
        """Write one line, at once."""
        self.history.append(row)
        self._file.write(msgspec.json.encode(row) + b"\n")

    def sync(self) -> int:
        """Bring the file safely to disk; return its size in bytes, for the checkpoint."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
