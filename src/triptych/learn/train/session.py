"""One call of `fit`: set up, then steps between stops.

Between two *stops* (a logged step, a validation, a checkpoint, the end) the loop only takes steps. At a stop
it checks that all is finite, logs, validates, saves. A stop depends on the step alone, so a resumed run stops
where the first did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from triptych.errors import ConfigError, DataError
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.split import Cursor, Sampler
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import checkpoint, rng
from triptych.learn.train.compiling import CompilingFailed, is_compiled
from triptych.learn.train.device import set_threads
from triptych.learn.train.diagnosis import Figures
from triptych.learn.train.guard import Guard
from triptych.learn.train.record import Callback, Record, Silence
from triptych.learn.train.resume import Saved, read_saved
from triptych.learn.train.run import Run, describe, open_run, shown
from triptych.learn.train.settings import LogSettings, TrainSettings, warms_up
from triptych.learn.train.state import TrainingState, load_weights, weights
from triptych.learn.train.steps import Steps
from triptych.learn.train.validation import check_metric, judge, validate
from triptych.learn.train.world import World


class Session:
    """Trains `model` on `data` in the folder `out`."""

    def __init__(
        self,
        model: GenerativeModel,
        data: Dataset,
        settings: TrainSettings,
        log: LogSettings,
        callbacks: Sequence[Callback],
        *,
        out: Path,
        resume: Path | None,
        world: World,
        device: torch.device,
    ) -> None:
        self.model, self.data, self.settings, self.log, self.out = model, data, settings, log, out
        self.world, self.metric = world, settings.metric or model.validation_metric
        self.config = describe(model, data, settings, log)
        saved = None if resume is None else read_saved(resume, self.config)
        before = {} if saved is None or saved.facts.get("processes", 1) != world.size else saved.facts
        self.threads, self.notes = set_threads(before.get("threads", settings.threads))
        for name, split in (("training", data.train), ("validation", data.validation)):
            if len(split) == 0:
                raise DataError(f"the {name} split is empty", where=data.name)
        model.to(device).train()
        world.equalise(weights(model).values())
        sampler = Sampler(data.train, settings.batch_size, Cursor(settings.seed))
        world.check(sampler.batch_size)
        self.state = TrainingState(model, sampler, settings)
        self.steps = self._planned(device, compiled_before=before.get("compiled"))
        self.total = self.steps.total
        self.notes += ineffective(self.state, settings, self.total)
        if saved is not None:
            self.state.load(saved.tensors, saved.facts, where=str(resume))
        else:
            rng.seed_all(settings.seed)
        self.first_step = self.state.counters.step
        self.record = self._opened(callbacks, saved) if world.leads else Silence()

    def _planned(self, device: torch.device, compiled_before: bool | None) -> Steps:
        """How many steps there are to be, and whether they are compiled."""
        turns = [player.turn for player in self.state.players]
        steps_per_epoch = max(1, self.state.sampler.per_epoch // max(1, self._draws()))
        total = self.settings.total_steps(steps_per_epoch)
        compiled, notes = is_compiled(
            self.settings.compile,
            recorded=compiled_before,
            updates=total * sum(turn.updates for turn in turns),
            processes=self.world.size,
            device=device,
        )
        self.notes += notes
        return Steps(
            self.state,
            self.settings,
            self.world,
            device,
            total=total,
            steps_per_epoch=steps_per_epoch,
            compiled=compiled,
        )

    def _opened(self, callbacks: Sequence[Callback], saved: Saved | None) -> Record:
        return Record(
            self.out,
            self.config,
            self.model,
            self.data,
            self.log,
            callbacks,
            first_step=self.first_step,
            total=self.total,
            examples_per_step=self._draws() * self.state.sampler.batch_size,
            metrics_bytes=0 if saved is None else saved.facts["metrics_bytes"],
            before_s=0.0 if saved is None else saved.facts["elapsed_s"],
        )

    def _draws(self) -> int:
        """Batches drawn for one step."""
        turns = [player.turn for player in self.state.players]
        return sum(turn.updates * turn.needs_data for turn in turns) * self.settings.accumulate

    def run(self) -> Run:
        """Train to the end."""
        try:
            self._begin()
            self._loop()
            best = self.out / "checkpoints" / "best"
            self.world.agree(lambda: None)  # the leader has written it
            tensors = checkpoint.read(best)[0]
            load_weights(self.model, shown(tensors), str(best))
            self.model.eval()
            self._summarise(finished=True)
            self.record.finish()
        except KeyboardInterrupt:
            self.record.say(self._where_it_stands())
            raise
        finally:
            self.record.close()
        self.world.agree(lambda: None)
        return open_run(self.out, model=self.model)

    def _begin(self) -> None:
        for note in self.notes:
            self.record.say(note)
        counters = self.state.counters
        if self.first_step == 0:
            counters.first_validation = self._validate()
        else:
            best_step = counters.best_step or counters.step
            self.record.point(counters.step, best_step, self.settings.keep_last)
            self.record.say(f"resumed at step {self.first_step}")
        if self.steps.compiled and counters.step < self.total:
            self.record.say("compiling the training step: 10 to 60 s, longer on a busy machine, once")

    def _loop(self) -> None:
        guard = Guard(self.steps, self.settings.guard_retries)
        while (counters := self.state.counters).step < self.total and not self._patience_is_over():
            stop = self._next_stop()
            self._advance(stop, guard)
            if not self.steps.finite():
                self.record.say(f"{guard.roll_back()}: rolled back to step {self.state.counters.step}")
                continue
            self._log_training()
            validation = stop == self.total or stop % self._validation_period() == 0
            if validation:
                judge(counters, self._validate(), self.metric, self.settings)
            every = self.settings.checkpoint_every_steps
            if validation or (every is not None and stop % every == 0):
                self._save()
            guard.keep()

    def _advance(self, stop: int, guard: Guard) -> None:
        """Step up to `stop`: eagerly from the last good state on, if the step turns out not to compile."""
        try:
            while self.state.counters.step < stop:
                self.steps.run()
        except CompilingFailed as error:
            if self.settings.compile is True:
                raise ConfigError(str(error), where="train.compile", remedy="set it to false") from error
            self.record.say(f"the step stays eager: {error}")
            self.steps.stay_eager()
            guard.restore()
            self._advance(stop, guard)

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
        terms = {name: value for named, _ in means.values() for name, value in named.items()}
        step = self.state.counters.step
        rates = {p.turn.name: self.steps.rate(p, step - 1) for p in self.state.players}
        norms = {turn: norm for turn, (_, norm) in means.items()}
        self.record.row(self._row("train", terms), {"lr": per_turn(rates), "grad_norm": per_turn(norms)})
        self.steps.reset()
        self.record.progress(step, self.steps.epoch(step), terms)

    def _row(self, split: str, terms: dict[str, float]) -> dict[str, Any]:
        step = self.state.counters.step
        return {"step": step, "epoch": self.steps.epoch(step), "split": split, **terms}

    def _validate(self) -> dict[str, float]:
        """The leader's validation and samples, which leave no trace in training; all learn its numbers."""
        terms, figures = self.world.agree(self._terms_and_figures)
        numbers = {**terms, **_numbers(figures)}
        check_metric(self.metric, numbers)
        self.record.row(self._row("validation", terms), figures)
        if not math.isfinite(numbers[self.metric]):
            self.record.say(f"validation: {self.metric} is {numbers[self.metric]}")
        self.record.validated(self.state.counters.step, terms)
        self._summarise(finished=False)
        return numbers

    def _terms_and_figures(self) -> tuple[dict[str, float], Figures]:
        self.model.eval()
        with self.state.averaged(), rng.borrowed():
            terms = validate(self.model, self.data.validation, self.steps)
            figures = self.record.sample(self.state.counters.step)
        self.model.train()
        return terms, figures

    def _patience_is_over(self) -> bool:
        patience, counters = self.settings.patience, self.state.counters
        if patience is None or counters.stale < patience:
            return False
        self.record.say(f"stopped early: no improvement in {patience} validations")
        return True

    def _save(self) -> None:
        counters = self.state.counters
        facts = {
            **self.state.facts(),
            "config": {k: v for k, v in self.config.items() if k != "log"},
            "threads": self.threads,
            "processes": self.world.size,
            "compiled": self.steps.compiled,
        }
        best_step = counters.best_step or counters.step
        self.record.save(counters.step, self.state.tensors(), facts, best_step, self.settings.keep_last)

    def _summarise(self, *, finished: bool) -> None:
        counters = self.state.counters
        self.record.summarise(
            {
                "finished": finished,
                "family": self.model.family,
                "dataset": self.data.name,
                "seed": self.settings.seed,
                "threads": self.threads,
                "processes": self.world.size,
                "device": str(self.steps.device),
                "compiled": self.steps.compiled,
                "compile_s": self._compile_s(),
                "steps": counters.step,
                "epochs": self.steps.epoch(counters.step) + 1 if counters.step else 0,
                "rollbacks": counters.rollbacks,
                "validation_metric": self.metric,
                "first_validation": counters.first_validation,
                "last_validation": counters.last_validation,
                "best_validation": {"step": counters.best_step, **counters.best_validation},
            }
        )

    def _compile_s(self) -> float | None:
        return round(self.steps.first_s or 0.0, 3) if self.steps.compiled else None


def ineffective(state: TrainingState, settings: TrainSettings, total: int) -> list[str]:
    """What is set and cannot come about with this data and in `total` steps."""
    notes = []
    if (held := state.sampler.batch_size) < settings.batch_size:
        notes.append(
            f"batches hold {held} examples, not {settings.batch_size}: there are no more to train on"
        )
    for player in state.players:
        steps = player.settings.warmup_steps or 0
        if warms_up(player.settings.schedule) and steps >= total:
            turn = f"turn `{player.turn.name}` warms up for {steps} steps"
            notes.append(f"{turn}, and training takes {total}: it never gets to its learning rate")
    return notes


def _numbers(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not isinstance(value, list)}


def per_turn(values: dict[str, float]) -> float | dict[str, float]:
    """The number itself in a game of one, otherwise one per turn."""
    return next(iter(values.values())) if len(values) == 1 else values
