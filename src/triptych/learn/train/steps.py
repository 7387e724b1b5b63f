"""One training step: every turn in order, each with its updates. The whole game fits this page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from triptych.learn.models.base import Batch, Progress, Terms
from triptych.learn.train.metrics import Meter
from triptych.learn.train.schedule import rate_factor
from triptych.learn.train.settings import TrainSettings
from triptych.learn.train.state import Player, TrainingState


class Steps:
    """Runs steps on a state. Nothing is read back from the device here, so the processor never waits
    for a number.
    """

    def __init__(
        self, state: TrainingState, settings: TrainSettings, *, total: int, steps_per_epoch: int
    ) -> None:
        self.state, self.settings = state, settings
        self.total, self.steps_per_epoch = total, steps_per_epoch
        self.meters = {player.turn.name: Meter() for player in state.players}
        self.device = torch.device(settings.device)

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to; the last step of an epoch still does."""
        return max(0, step - 1) // self.steps_per_epoch

    def rate(self, player: Player) -> float:
        """The learning rate of the step that comes next."""
        counters = self.state.counters
        return (
            player.learning_rate * rate_factor(self.settings, counters.step, self.total) * counters.rate_scale
        )

    def run(self) -> None:
        """One full round of all turns."""
        counters = self.state.counters
        progress = Progress(counters.step, counters.step // self.steps_per_epoch, self.total)
        batch: Batch | None = None
        for player in self.state.players:
            rate = self.rate(player)
            for group in player.optimizer.param_groups:
                group["lr"] = rate
            for _ in range(player.turn.updates):
                batch = self._update(player, batch, progress)
        self.state.update_ema()
        counters.step += 1

    def _update(self, player: Player, batch: Batch | None, progress: Progress) -> Batch:
        turn, meter = player.turn, self.meters[player.turn.name]
        player.optimizer.zero_grad(set_to_none=True)
        for _ in range(self.settings.accumulate):
            if batch is None or turn.needs_data:
                batch = self._draw()
            with self.autocast():
                terms = self.state.model.loss(batch, turn, progress)
            torch.autograd.backward(terms.total / self.settings.accumulate, inputs=list(turn.parameters))
            meter.add(terms)
        grads = [p.grad for p in turn.parameters if p.grad is not None]
        norm = get_total_norm(grads)
        if self.settings.grad_clip is not None:
            clip_grads_with_norm_(turn.parameters, self.settings.grad_clip, norm)
        meter.add_norm(norm)
        player.optimizer.step()
        self.state.model.after_update(turn)
        assert batch is not None
        return batch

    def _draw(self) -> Batch:
        return self.to_device(self.state.sampler.next())

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is."""
        if self.device.type == "cpu":
            return batch
        labels = None if batch.labels is None else batch.labels.to(self.device)
        return Batch(batch.x.to(self.device), labels)

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 where it is safe, or nothing."""
        if self.settings.precision == "f32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def finite(self) -> bool:
        """Whether all terms, gradient norms and weights are numbers: waits for the device."""
        parameters = (p for player in self.state.players for p in player.turn.parameters)
        return all(meter.finite() for meter in self.meters.values()) and all_finite(parameters)

    def reset(self) -> None:
        """Start the means anew."""
        for meter in self.meters.values():
            meter.reset()


def all_finite(tensors: Iterator[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return bool(get_total_norm([t.detach() for t in tensors], norm_type=float("inf")).isfinite())


def mean_terms(parts: list[tuple[Terms, int]]) -> dict[str, float]:
    """The weighted mean of each named term."""
    weight = sum(w for _, w in parts)
    return {
        name: float(torch.stack([terms.named[name].double() * w for terms, w in parts]).sum() / weight)
        for name in parts[0][0].named
    }
