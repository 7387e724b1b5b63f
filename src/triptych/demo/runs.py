"""What a run folder holds, read as a visitor would: files, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.demo.cast import Role
from triptych.pages import evenly


@dataclass(frozen=True)
class TrainedRun:
    """A finished run folder."""

    role: Role
    path: Path

    @property
    def summary(self) -> dict[str, Any]:
        """`run.json`."""
        document: dict[str, Any] = json.loads((self.path / "run.json").read_bytes())
        return document

    @property
    def metric(self) -> str:
        """The validation metric that is watched; lower is better."""
        return str(self.summary["validation_metric"])

    def validations(self) -> list[tuple[int, float]]:
        """(step, watched metric) of each validation, the first of them before any training."""
        rows = [json.loads(line) for line in (self.path / "metrics.jsonl").read_bytes().splitlines()]
        return [(row["step"], row[self.metric]) for row in rows if row["split"] == "validation"]

    def training_curve(self) -> tuple[list[int], dict[str, list[float]]]:
        """Steps, and every training term over them."""
        rows = [json.loads(line) for line in (self.path / "metrics.jsonl").read_bytes().splitlines()]
        rows = [row for row in rows if row["split"] == "train"]
        skipped = ("step", "epoch", "split", "elapsed_s", "lr", "grad_norm")
        names = [name for name in rows[0] if name not in skipped]
        return [row["step"] for row in rows], {name: [row[name] for row in rows] for name in names}

    def moments(self, count: int) -> list[tuple[int, Path]]:
        """Up to `count` sample files, evenly over training, first and last among them."""
        found = (self.path / "samples").glob("step-*")
        return evenly(sorted((int(path.stem.removeprefix("step-")), path) for path in found), count)
