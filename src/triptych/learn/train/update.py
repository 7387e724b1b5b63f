"""One update of one player: what it pays, the gradients, their norm, the move. The same lines run eagerly or
compiled into one graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from types import MethodType
from typing import NamedTuple

import torch
from torch import Tensor

from triptych.learn.maths.optimizers import clip_factor, global_norm
from triptych.learn.models.base import Batch, GenerativeModel, Progress
from triptych.learn.train.compiling import compile_whole
from triptych.learn.train.meter import stacked
from triptych.learn.train.player import Pace, Player
from triptych.learn.train.world import World

Gradients = Sequence[Tensor | None]
Statistics = dict[str, Tensor]


class Paid(NamedTuple):
    """The names of the terms; the total, the terms and the gradient norm; what the model keeps account of."""

    names: tuple[str, ...]
    values: Tensor
    statistics: Statistics


class Update:
    """One update of one player.

    Args:
        autocast: makes the context in which the loss is computed.
        compiled: compile the whole update, optimiser included; the first one then takes long.
    """

    def __init__(
        self,
        model: GenerativeModel,
        player: Player,
        world: World,
        autocast: Callable[[], AbstractContextManager[object]],
        *,
        compiled: bool,
    ) -> None:
        self.model, self.player, self.world, self.autocast = model, player, world, autocast
        self.gradients: Gradients = ()  # of the last eager update, unclipped: to see what broke
        self.graph = compile_whole(MethodType(Update._run, self)) if compiled else None

    def __call__(self, batches: list[Batch], progress: Progress, rate: float, *, eager: bool = False) -> Paid:
        """Update on the mean loss over `batches`."""
        if self.graph is None or eager:
            return self._run(batches, progress, rate)
        device = batches[0].x.device
        paid: Paid = self.graph(batches, on_device(progress, device), self.player.pace(rate))
        return paid

    def _run(self, batches: list[Batch], progress: Progress, rate: float | Pace) -> Paid:
        names, values, gradients, statistics = self._pay(batches, progress)
        found = [g for g in gradients if g is not None]
        averaged = iter(self.world.average([*found, *statistics.values()]))
        gradients = [None if g is None else next(averaged) for g in gradients]
        statistics = {name: next(averaged) for name in statistics}
        if not torch.compiler.is_compiling():
            self.gradients = gradients
        norm = global_norm([g for g in gradients if g is not None])
        if self.player.settings.grad_clip is not None:
            factor = clip_factor(norm, self.player.settings.grad_clip)
            gradients = [None if g is None else g * factor for g in gradients]
        with torch.no_grad():
            self.player.move(gradients, rate)
        return Paid(names, torch.cat([values, norm[None]]), statistics)

    def _pay(
        self, batches: list[Batch], progress: Progress
    ) -> tuple[tuple[str, ...], Tensor, Gradients, Statistics]:
        """Terms, gradients and statistics, averaged over `batches`."""
        names: tuple[str, ...] = ()
        statistics: Statistics = {}
        values = torch.zeros(())
        gradients: Gradients = [None] * len(self.player.moments)
        for batch in batches:
            with self.world.noise(len(batch)), self.autocast():
                terms = self.model.loss(batch, self.player.turn, progress)
            share = terms.total / len(batches)
            fresh = torch.autograd.grad(share, self.player.weights, allow_unused=True)
            gradients = [added(a, b) for a, b in zip(gradients, fresh, strict=True)]
            names, values = tuple(terms.named), values + stacked(terms.total, terms.named) / len(batches)
            for name, mean in terms.statistics.items():
                part = mean.detach() / len(batches)
                statistics[name] = statistics[name] + part if name in statistics else part
        return names, values, gradients, statistics


def added(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of what is there."""
    return b if a is None else a if b is None else a + b


def on_device(progress: Progress, device: torch.device) -> Progress:
    """The same with tensors for what changes, so that a graph need not be made anew at each step."""
    step, epoch = (torch.tensor(float(n), device=device) for n in (progress.step, progress.epoch))
    return Progress(step, epoch, progress.max_steps)
