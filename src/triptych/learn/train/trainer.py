"""The trainer: one loop for likelihood, adversarial and autoregressive models alike.

Between two *stops* (a logged step, a validation, a checkpoint, the end) it only takes steps. At a stop it
checks that all is finite, logs, validates, saves. A stop depends on the step alone, so a resumed run stops
where the first did.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from triptych.errors import CheckpointError, ConfigError, DataError, nearest
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.split import Cursor, Sampler
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import checkpoint, rng
from triptych.learn.train.guard import Guard
from triptych.learn.train.metrics import MetricsLog, Row
from triptych.learn.train.progress import Display
from triptych.learn.train.report import Report
from triptych.learn.train.run import Run, describe, open_run, write_json
from triptych.learn.train.settings import LogSettings, TrainSettings, as_section
from triptych.learn.train.state import TrainingState, load_weights, weights
from triptych.learn.train.steps import Steps, mean_terms

VALIDATION_BATCH = 500
DEVICES = ("cpu", "cuda", "mps")
LENGTH = frozenset({"max_epochs", "max_steps"})
# What decides when to stop or save, but no step's outcome.
MAY_CHANGE_ON_RESUME = frozenset({"patience", "checkpoint_every_steps", "guard_retries", "keep_last"})


@dataclass(frozen=True, slots=True)
class Moment:
    """What a callback gets after each logged line: the row, and the model as it is then."""

    row: Row
    model: GenerativeModel
    path: Path


Callback = Callable[[Moment], None]


class Trainer:
    """Trains any `GenerativeModel` on any `Dataset`.

    Args:
        out: the run folder; by default a new one under `runs/`.
        log: a `LogSettings`, or a dict of its fields.
        callbacks: plain functions, called with a `Moment` after each logged line.
        settings: fields of `TrainSettings`.

    >>> from triptych.learn import VAE, Trainer, datasets
    >>> import tempfile
    >>> model = VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(16,), latent_dim=2))
    >>> trainer = Trainer(max_steps=4, out=tempfile.mkdtemp() + "/run", log={"progress": False})
    >>> trainer.fit(model, datasets.digits()).summary["steps"]
    4
    """

    def __init__(
        self,
        *,
        out: str | Path | None = None,
        log: LogSettings | dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        **settings: Any,
    ) -> None:
        self.settings = as_section(TrainSettings, settings, "train")
        self.log = log if isinstance(log, LogSettings) else as_section(LogSettings, log or {}, "log")
        self.out = None if out is None else Path(out)
        self.callbacks = tuple(callbacks)

    @classmethod
    def of(cls, settings: TrainSettings, log: LogSettings, out: Path) -> Trainer:
        """A trainer from checked sections."""
        return cls(out=out, log=log, **msgspec.structs.asdict(settings))

    def fit(
        self,
        model: GenerativeModel,
        data: Dataset,
        resume: Literal["auto"] | str | Path | None = None,
    ) -> Run:
        """Train `model` on `data` and return the run; the model then holds the best weights.

        Args:
            resume: None to start anew in an empty folder; "auto" to go on from `checkpoints/last` if there
            is one;
                or a checkpoint folder to go on from.

        Raises:
            ConfigError: the model does not fit the data, or the folder already holds a run.
            CheckpointError: the checkpoint is damaged, newer, or of another configuration.
            NonFiniteError: the loss was not finite too often.
        """
        data.check(model.config)
        out = self.out or free_folder(Path("runs") / f"{model.family}-{data.name}".replace("_", "-"))
        return _Session(self, model, data, out, _resume_from(out, resume)).run()


def free_folder(base: Path) -> Path:
    """`base`, or the first of `base-2`, `base-3`, ... that is not there yet."""
    count, folder = 1, base
    while folder.exists():
        count += 1
        folder = base.with_name(f"{base.name}-{count}")
    return folder


def _resume_from(out: Path, resume: str | Path | None) -> Path | None:
    last = out / "checkpoints" / "last"
    if resume == "auto":
        return last if last.exists() else None
    if resume is not None:
        return _of_this_run(out, Path(resume))
    log = out / "metrics.jsonl"
    if log.exists() and log.stat().st_size:  # an empty one was left by a run that could not begin
        raise ConfigError(
            "the folder already holds a run",
            where=str(out),
            remedy="resume it with `auto`, or choose another folder",
        )
    return None


def _of_this_run(out: Path, resume: Path) -> Path:
    """The log and the best checkpoint lie beside the checkpoint, so training goes on in the same folder."""
    inside = os.path.abspath(resume.parent) == os.path.abspath(out / "checkpoints")
    if (resume / "state.json").exists() and not inside:
        raise ConfigError(
            f"{resume} is a checkpoint of another run",
            where=str(out),
            valid=f"one of {out / 'checkpoints'}",
            remedy="to branch off, copy that whole run folder and resume in the copy",
        )
    return resume


class _Session:
    """One call of `fit`."""

    def __init__(
        self, trainer: Trainer, model: GenerativeModel, data: Dataset, out: Path, resume: Path | None
    ) -> None:
        self.settings, self.log, self.callbacks = trainer.settings, trainer.log, trainer.callbacks
        self.model, self.data, self.out = model, data, out
        self.metric = self.settings.metric or model.validation_metric
        self.config = describe(model, data, self.settings, self.log)
        saved = None if resume is None else self._read(resume)
        self._prepare_machine(None if saved is None else saved[1]["threads"])
        for name, split in (("training", data.train), ("validation", data.validation)):
            if len(split) == 0:
                raise DataError(f"the {name} split is empty", where=data.name)
        model.to(self.settings.device).train()
        sampler = Sampler(data.train, self.settings.batch_size, Cursor(self.settings.seed))
        self.state = TrainingState(model, sampler, self.settings)
        draws = sum(p.turn.updates * p.turn.needs_data for p in self.state.players) * self.settings.accumulate
        steps_per_epoch = max(1, sampler.per_epoch // max(1, draws))
        self.total = self.settings.total_steps(steps_per_epoch)
        self.steps = Steps(self.state, self.settings, total=self.total, steps_per_epoch=steps_per_epoch)
        self.examples_per_step = draws * sampler.batch_size
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot be made: {error.strerror}", where=str(out), remedy="choose another"
            ) from error
        write_json(out / "config.json", self.config)
        if data.tokenizer is not None:
            (out / "tokenizer.json").write_text(data.tokenizer, "utf-8")
        size_bytes, self.before_s = 0, 0.0
        if saved is not None:
            self.state.load(*saved, where=str(resume))
            size_bytes, self.before_s = saved[1]["metrics_bytes"], saved[1]["elapsed_s"]
        else:
            rng.seed_all(self.settings.seed)
        self.metrics = MetricsLog(out / "metrics.jsonl", size_bytes=size_bytes)
        self.first_step = self.state.counters.step

    def _read(self, path: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        tensors, facts = checkpoint.read(path)
        free = MAY_CHANGE_ON_RESUME | (LENGTH if self.settings.schedule == "constant" else frozenset())
        if changes := checkpoint.difference(_fixed(facts["config"], free), _fixed(self.config, free)):
            by_length = LENGTH & {change.split()[0].removeprefix("train.") for change in changes}
            raise CheckpointError(
                "it is of another configuration: " + "; ".join(changes),
                where=str(path),
                remedy=f"with schedule `{self.settings.schedule}` the length sets the learning rate of every "
                "step taken so far: start anew in another folder"
                if by_length
                else "resume with the same settings, or start anew in another folder",
            )
        return tensors, facts

    def _prepare_machine(self, recorded: int | None) -> None:
        """The number of threads changes the bits, so a resumed run takes that of the first."""
        torch.zeros(1).exp()
        wanted = recorded or self.settings.threads
        if wanted is not None:
            torch.set_num_threads(wanted)
        self.threads = torch.get_num_threads()
        self.notes = []
        if wanted is not None and self.threads != wanted:
            self.notes.append(
                f"{wanted} threads cannot be had, {self.threads} can: the last bits of the weights may differ"
            )
        try:
            usable = torch.device(self.settings.device).type in DEVICES
            torch.empty(0, device=self.settings.device)
        except (RuntimeError, AssertionError):
            usable = False
        if not usable:
            raise ConfigError(
                f"`{self.settings.device}` is not there", where="train.device", remedy='use "cpu"'
            )

    def run(self) -> Run:
        """Train to the end."""
        self.started_s = time.monotonic()
        self.report = Report(self.out, self.config, self.data, self.log)
        try:
            with Display(
                self.out.name, self.total, self.first_step, enabled=self.log.progress
            ) as self.display:
                self._begin()
                self._loop()
        except KeyboardInterrupt:
            self.display.say(self._where_it_stands())
            raise
        finally:
            self.metrics.close()
        best = self.out / "checkpoints" / "best"
        load_weights(self.model, _shown(checkpoint.read(best)[0]), str(best))
        self.model.eval()
        self._summarise(finished=True)
        self.report.write(self.metrics.history, running=False)
        return open_run(self.out, model=self.model)

    def _begin(self) -> None:
        for note in self.notes:
            self.display.say(note)
        counters, folder = self.state.counters, self.out / "checkpoints"
        if self.first_step == 0:
            counters.first_validation = self._validate()
        else:
            checkpoint.point(
                folder,
                step=counters.step,
                best_step=counters.best_step or counters.step,
                keep_last=self.settings.keep_last,
            )
            self.display.say(f"resumed at step {self.first_step}")

    def _loop(self) -> None:
        guard = Guard(self.steps, self.settings.guard_retries)
        while self.state.counters.step < self.total and not self._patience_is_over():
            stop = self._next_stop()
            while self.state.counters.step < stop:
                self.steps.run()
            if not self.steps.finite():
                self.display.say(f"{guard.roll_back()}: rolled back to step {self.state.counters.step}")
                continue
            self._log_training()
            validation = stop == self.total or stop % self._validation_period() == 0
            if validation:
                self._judge(self._validate())
            every = self.settings.checkpoint_every_steps
            if validation or (every is not None and stop % every == 0):
                self._save()
            guard.keep()

    def _where_it_stands(self) -> str:
        last = self.out / "checkpoints" / "last"
        if not last.exists():
            return f"interrupted at step {self.state.counters.step}, before the first checkpoint"
        step = int(last.resolve().name.removeprefix("step-"))
        return f"interrupted at step {self.state.counters.step}; --resume auto goes on from step {step}"

    def _validation_period(self) -> int:
        return self.settings.validate_every_steps or self.steps.steps_per_epoch

    def _next_stop(self) -> int:
        step = self.state.counters.step
        periods = [self.log.every_steps, self._validation_period()]
        if self.settings.checkpoint_every_steps is not None:
            periods.append(self.settings.checkpoint_every_steps)
        return min(self.total, *((step // period + 1) * period for period in periods))

    def _log_training(self) -> None:
        means = {name: meter.means() for name, meter in self.steps.meters.items()}
        terms = {name: value for _, (named, _) in means.items() for name, value in named.items()}
        counters = self.state.counters
        rates = {p.turn.name: p.optimizer.param_groups[0]["lr"] for p in self.state.players}
        norms = {turn: norm for turn, (_, norm) in means.items()}
        self._append("train", terms, {"lr": per_turn(rates), "grad_norm": per_turn(norms)})
        self.steps.reset()
        self.display.update(counters.step, self.steps.epoch(counters.step), terms, self.examples_per_step)

    def _append(self, split: str, terms: dict[str, float], more: dict[str, Any]) -> None:
        step = self.state.counters.step
        row = {"step": step, "epoch": self.steps.epoch(step), "split": split, **terms, **more}
        self.metrics.append({**row, "elapsed_s": round(self._elapsed_s(), 3)})
        for callback in self.callbacks:
            callback(Moment(self.metrics.history[-1], self.model, self.out))

    def _validate(self) -> dict[str, float]:
        """Terms over the whole validation split, and the samples of this moment; leaves no trace in
        training.
        """
        present = (
            {name: tensor.clone() for name, tensor in weights(self.model).items()} if self.state.ema else {}
        )
        if present:
            load_weights(self.model, self.state.ema, "moving average")
        self.model.eval()
        with rng.borrowed(), torch.no_grad():
            parts = []
            for batch, weight in self.data.validation.whole(VALIDATION_BATCH):
                with self.steps.autocast():
                    parts.append((self.model.validate(self.steps.to_device(batch)), weight))
            terms = mean_terms(parts)
            if self.metric not in terms:
                raise ConfigError(
                    f"got {self.metric!r}",
                    where="train.metric",
                    valid=", ".join(terms),
                    remedy=nearest(self.metric, terms),
                )
            self.report.sample(self.model, self.state.counters.step)
        self.model.train()
        if present:
            load_weights(self.model, present, "weights")
        self._append("validation", terms, {})
        self.display.validated(self.state.counters.step, terms)
        self._summarise(finished=False)
        self.report.write(self.metrics.history, running=True)
        return terms

    def _judge(self, terms: dict[str, float]) -> None:
        counters, metric = self.state.counters, self.metric
        value = terms[metric]
        counters.last_validation = terms
        better = counters.best is None or value < counters.best - self.settings.min_delta
        if better and math.isfinite(value):  # what is not a number is never the best
            counters.best, counters.best_step, counters.stale = value, counters.step, 0
            counters.best_validation = terms
        else:
            counters.stale += 1
        if not math.isfinite(value):
            self.display.say(f"validation: {metric} is {value}")

    def _patience_is_over(self) -> bool:
        patience, counters = self.settings.patience, self.state.counters
        if patience is None or counters.stale < patience:
            return False
        self.display.say(f"stopped early: no improvement in {patience} validations")
        return True

    def _save(self) -> None:
        counters = self.state.counters
        facts = {
            **self.state.facts(),
            "config": {k: v for k, v in self.config.items() if k != "log"},
            "threads": self.threads,
            "metrics_bytes": self.metrics.sync(),
            "elapsed_s": self._elapsed_s(),
        }
        checkpoint.write(
            self.out / "checkpoints",
            counters.step,
            self.state.tensors(),
            facts,
            best_step=counters.best_step or counters.step,
            keep_last=self.settings.keep_last,
        )

    def _elapsed_s(self) -> float:
        return self.before_s + time.monotonic() - self.started_s

    def _summarise(self, *, finished: bool) -> None:
        counters, elapsed_s = self.state.counters, self._elapsed_s()
        taken = counters.step * self.examples_per_step
        write_json(
            self.out / "run.json",
            {
                "finished": finished,
                "family": self.model.family,
                "dataset": self.data.name,
                "seed": self.settings.seed,
                "threads": self.threads,
                "versions": versions(),
                "steps": counters.step,
                "epochs": self.steps.epoch(counters.step) + 1 if counters.step else 0,
                "seconds": round(elapsed_s, 3),
                "examples_per_second": round(taken / elapsed_s, 1) if elapsed_s else 0.0,
                "rollbacks": counters.rollbacks,
                "validation_metric": self.metric,
                "first_validation": counters.first_validation,
                "last_validation": counters.last_validation,
                "best_validation": {"step": counters.best_step, **counters.best_validation},
            },
        )


def _fixed(config: dict[str, Any], free: frozenset[str]) -> dict[str, Any]:
    """The part of a `config.json` that a resumed run must share with its checkpoint."""
    train = {key: value for key, value in config["train"].items() if key not in free}
    return {**{key: value for key, value in config.items() if key != "log"}, "train": train}


def per_turn(values: dict[str, float]) -> float | dict[str, float]:
    """The number itself in a game of one, otherwise one per turn."""
    return next(iter(values.values())) if len(values) == 1 else values


def _shown(tensors: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The weights to use: the moving average when there is one."""
    return tensors.get("ema", tensors["model"])


def versions() -> dict[str, str]:
    """The versions that the numbers depend on."""
    import platform
    from importlib.metadata import version

    import numpy as np

    return {
        "triptych": version("triptych"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
