"""What a run writes down and shows: log, report, samples, checkpoints, `run.json`, a bar on the terminal.

Of several processes only the leader has a `Record`; the others have a `Silence`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triptych.errors import ConfigError, TrainingError
from triptych.learn.data.dataset import Dataset
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import alarms, checkpoint
from triptych.learn.train.diagnosis import Figures, diagnose
from triptych.learn.train.lock import FolderLock
from triptych.learn.train.metrics import MetricsLog, Row
from triptych.learn.train.progress import Display
from triptych.learn.train.report import Report
from triptych.learn.train.run import write_json
from triptych.learn.train.settings import LogSettings
from triptych.learn.train.state import Tensors
from triptych.learn.train.tensorboard import Board, summary_writer


@dataclass(frozen=True, slots=True)
class Moment:
    """What a callback gets after each logged line: the row, and the model as it is then."""

    row: Row
    model: GenerativeModel
    path: Path


Callback = Callable[[Moment], None]


class Silence:
    """Writes nothing and shows nothing."""

    def say(self, line: str) -> None:
        """A line that stays on the terminal."""

    def row(self, row: Row, more: dict[str, Any]) -> None:
        """A line of `metrics.jsonl`: `row` and what follows the terms."""

    def progress(self, step: int, epoch: int, terms: dict[str, float]) -> None:
        """Where training stands."""

    def sample(self, step: int) -> Figures:
        """The samples of this moment, and what the model's diagnosis found."""
        return {}

    def validated(self, step: int, terms: dict[str, float]) -> None:
        """The outcome of a validation."""

    def save(
        self, step: int, tensors: Tensors, facts: dict[str, Any], best_step: int, keep_last: int
    ) -> None:
        """A checkpoint."""

    def point(self, step: int, best_step: int, keep_last: int) -> None:
        """Where `last` and `best` point, after a resume."""

    def summarise(self, facts: dict[str, Any]) -> None:
        """`run.json`."""

    def finish(self) -> None:
        """The last look of the report."""

    def close(self) -> None:
        """Let go of files and terminal."""


class Record(Silence):
    """Writes and shows everything, into the folder `out`."""

    def __init__(
        self,
        out: Path,
        config: dict[str, Any],
        model: GenerativeModel,
        data: Dataset,
        log: LogSettings,
        callbacks: Sequence[Callback],
        *,
        first_step: int,
        total: int,
        examples_per_step: int,
        metrics_bytes: int,
        before_s: float,
    ) -> None:
        if log.tensorboard:
            summary_writer()
        try:
            with ExitStack() as undone:
                out.mkdir(parents=True, exist_ok=True)
                self.lock = FolderLock(out)
                undone.callback(self.lock.close)
                self.report = Report(out, config, data, log)
                self.metrics = MetricsLog(out / "metrics.jsonl", size_bytes=metrics_bytes)
                write_json(out / "config.json", config)
                if data.tokenizer is not None:
                    (out / "tokenizer.json").write_text(data.tokenizer, "utf-8")
                undone.pop_all()
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}", where=str(out), remedy="choose another folder"
            ) from error
        self.out, self.model, self.data, self.callbacks = out, model, data, tuple(callbacks)
        self.metric = model.validation_metric
        self.examples_per_step = examples_per_step
        self.display = Display(out.name, total, first_step, enabled=log.progress)
        self.display.__enter__()
        self._began_s = time.monotonic() - before_s
        self.alarms = alarms.raised(self.metrics.history, self.metric)
        self.board = Board(out, self.metrics.history, elapsed_s=before_s) if log.tensorboard else None
        if self.board is not None:
            self.callbacks += (self.board,)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, of earlier parts of this run too."""
        return time.monotonic() - self._began_s

    def say(self, line: str) -> None:
        """A line that stays on the terminal."""
        self.display.say(line)

    def row(self, row: Row, more: dict[str, Any]) -> None:
        """Append to `metrics.jsonl`, with what validation found out besides, and call the callbacks."""
        if row["split"] == "validation":
            self.alarms = alarms.raised([*self.metrics.history, {**row, **more}], self.metric)
            more = {**more, "alarms": [alarm.name for alarm in self.alarms]}
        with written(self.out):
            self.metrics.append({**row, **more, "elapsed_s": round(self.elapsed_s, 3)})
        for callback in self.callbacks:
            callback(Moment(self.metrics.history[-1], self.model, self.out))

    def progress(self, step: int, epoch: int, terms: dict[str, float]) -> None:
        """Move the bar."""
        self.display.update(step, epoch, terms, self.examples_per_step)

    def sample(self, step: int) -> Figures:
        """Draw samples and reconstructions, and diagnose the model."""
        with written(self.out):
            self.report.sample(self.model, step)
        return diagnose(self.model, self.data)

    def validated(self, step: int, terms: dict[str, float]) -> None:
        """Show the outcome, new alarms first, and write the report."""
        self.display.validated(step, terms)
        for line in alarms.news(alarms.names_before(self.metrics.history[:-1]), self.alarms):
            self.display.warn(line)
        with written(self.out):
            self.report.write(self.metrics.history, running=True, alarms=self.alarms)

    def save(
        self, step: int, tensors: Tensors, facts: dict[str, Any], best_step: int, keep_last: int
    ) -> None:
        """Write a checkpoint, with the length that the log has by then."""
        with written(self.out):
            facts = {**facts, "metrics_bytes": self.metrics.sync(), "elapsed_s": self.elapsed_s}
            checkpoint.write(
                self.out / "checkpoints", step, tensors, facts, best_step=best_step, keep_last=keep_last
            )

    def point(self, step: int, best_step: int, keep_last: int) -> None:
        """Switch `last` and `best`."""
        with written(self.out):
            checkpoint.point(self.out / "checkpoints", step=step, best_step=best_step, keep_last=keep_last)

    def summarise(self, facts: dict[str, Any]) -> None:
        """Write `run.json`: `facts`, versions, speed, alarms."""
        elapsed_s = self.elapsed_s
        trained_s = elapsed_s - (facts["compile_s"] or 0.0)
        taken = facts["steps"] * self.examples_per_step
        speed = {
            "versions": versions(),
            "seconds": round(elapsed_s, 3),
            "examples_per_second": round(taken / trained_s, 1) if trained_s else 0.0,
        }
        watch = {"alarms": self.alarms, "alarm_episodes": alarms.episodes(self.metrics.history)}
        with written(self.out):
            write_json(self.out / "run.json", {**facts, **speed, **watch})

    def finish(self) -> None:
        """Write the report of a finished run."""
        with written(self.out):
            self.report.write(self.metrics.history, running=False, alarms=self.alarms)

    def close(self) -> None:
        """Close files, and take the bar off the terminal."""
        self.display.__exit__(None, None, None)
        self.metrics.close()
        self.lock.close()
        if self.board is not None:
            self.board.close()


@contextmanager
def written(out: Path) -> Iterator[None]:
    """Inside, what cannot be written to the folder `out` is a `TrainingError`."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"cannot be written: {error.strerror or error}",
            where=str(error.filename or out),
            remedy="make room; --resume auto then goes on from the last checkpoint",
        ) from error


def versions() -> dict[str, str]:
    """The versions that the numbers depend on."""
    return {
        "triptych": version("triptych"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
