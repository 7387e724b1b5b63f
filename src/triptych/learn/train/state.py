"""Everything that training changes, in one place: what a checkpoint holds and what a roll-back restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from torch import Tensor, nn

from triptych.errors import CheckpointError
from triptych.learn.data.split import Cursor, Sampler
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import rng
from triptych.learn.train.player import Player
from triptych.learn.train.settings import TrainSettings

Tensors = dict[str, dict[str, Tensor]]


class Counters(msgspec.Struct):
    """The plain numbers. `rate_scale` halves at each roll-back; `stale` counts validations without
    improvement.
    """

    step: int = 0
    rate_scale: float = 1.0
    rollbacks: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    first_validation: Mapping[str, float | None] = {}  # JSON has no NaN: it comes back as None
    last_validation: Mapping[str, float | None] = {}
    best_validation: Mapping[str, float | None] = {}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, a shared tensor once, under its first name."""
    seen: set[tuple[int, int]] = set()
    found = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        key = (tensor.data_ptr(), tensor.numel())
        if key not in seen or tensor.numel() == 0:
            seen.add(key)
            found[name] = tensor.detach()
    return found


def load_weights(model: nn.Module, saved: dict[str, Tensor], where: str) -> None:
    """Copy `saved` into the model's own tensors, in place."""
    have = weights(model)
    if have.keys() != saved.keys():
        strange = sorted(have.keys() ^ saved.keys())
        raise CheckpointError(f"tensors do not match this model: {', '.join(strange[:5])}", where=where)
    for name, tensor in have.items():
        if tensor.shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)} saved, {tuple(tensor.shape)} in the model"
            raise CheckpointError(f"`{name}`: {shapes}", where=where)
        tensor.copy_(saved[name])


class TrainingState:
    """Model, players, sampler, moving average, counters."""

    def __init__(self, model: GenerativeModel, sampler: Sampler, settings: TrainSettings) -> None:
        self.model, self.sampler = model, sampler
        turns = model.turns()
        settings.check_turns(turn.name for turn in turns)
        self.players = [Player(turn, settings.of_turn(turn.name)) for turn in turns]
        self.counters = Counters()
        self.ema: dict[str, Tensor] = {}
        if settings.ema_decay is not None:
            self.ema = {name: tensor.clone() for name, tensor in weights(model).items()}
        self._decay = settings.ema_decay

    def update_ema(self) -> None:
        """Move the average of each weight a little towards its present value; copy what is not a float."""
        if self._decay is None:
            return
        for name, tensor in weights(self.model).items():
            if tensor.is_floating_point():
                self.ema[name].lerp_(tensor, 1 - self._decay)
            else:
                self.ema[name].copy_(tensor)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the moving average of its weights, where one is kept."""
        if not self.ema:
            yield
            return
        present = {name: tensor.clone() for name, tensor in weights(self.model).items()}
        load_weights(self.model, self.ema, "moving average")
        try:
            yield
        finally:
            load_weights(self.model, present, "weights")

    def tensors(self) -> Tensors:
        """Every tensor, grouped by the file it goes to. Not copies."""
        optimizer = {
            f"{player.turn.name}.{index}.{key}": tensor
            for player in self.players
            for index, moments in enumerate(player.moments)
            for key, tensor in moments.tensors().items()
        }
        groups = {"model": weights(self.model), "optimizer": optimizer, "rng": rng.capture()[0]}
        return {**groups, "ema": self.ema} if self.ema else groups

    def facts(self) -> dict[str, Any]:
        """Everything else, as JSON."""
        return {
            "counters": msgspec.to_builtins(self.counters),
            "cursor": msgspec.to_builtins(self.sampler.cursor),
            "rng": rng.capture()[1],
        }

    def load(self, tensors: Tensors, facts: dict[str, Any], where: str = "snapshot") -> None:
        """Take over a state that `tensors` and `facts` gave."""
        try:
            load_weights(self.model, tensors["model"], where)
            for name, tensor in self.tensors()["optimizer"].items():
                tensor.copy_(tensors["optimizer"][name])
            for name, tensor in self.ema.items():
                tensor.copy_(tensors["ema"][name])
            self.counters = msgspec.convert(facts["counters"], Counters)
            self.sampler.seek(msgspec.convert(facts["cursor"], Cursor))
            rng.restore(tensors["rng"], facts["rng"])
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise CheckpointError(
                f"is not what this Triptych writes: {type(error).__name__}: {error}",
                where=where,
                remedy="resume with the Triptych that wrote it, or start anew in another folder",
            ) from error

    def snapshot(self) -> tuple[Tensors, dict[str, Any]]:
        """A copy in memory, to roll back to."""
        copies = {
            file: {name: t.clone() for name, t in group.items()} for file, group in self.tensors().items()
        }
        return copies, self.facts()
