"""One training step: every turn in order, each with its updates. The whole game fits this page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import get_total_norm

from triptych.learn.models.base import Batch, Progress
from triptych.learn.train.meter import Meter
from triptych.learn.train.player import Player
from triptych.learn.train.schedule import rate_factor
from triptych.learn.train.settings import TrainSettings
from triptych.learn.train.state import TrainingState
from triptych.learn.train.update import Update
from triptych.learn.train.world import World


class Steps:
    """Runs steps on a state. Nothing is read back from the device here, so the processor never waits
    for a number.

    `first_s` is how long the first step took: with `compiled`, nearly all of it is compiling.
    """

    def __init__(
        self,
        state: TrainingState,
        settings: TrainSettings,
        world: World,
        device: torch.device,
        *,
        total: int,
        steps_per_epoch: int,
        compiled: bool,
    ) -> None:
        self.state, self.settings, self.world, self.device = state, settings, world, device
        self.total, self.steps_per_epoch, self.compiled = total, steps_per_epoch, compiled
        self.first_s: float | None = None
        self.meters = {player.turn.name: Meter() for player in state.players}
        self.updates = {
            player.turn.name: Update(state.model, player, world, self.autocast, compiled=compiled)
            for player in state.players
        }

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to; the last step of an epoch still does."""
        return max(0, step - 1) // self.steps_per_epoch

    def rate(self, player: Player, step: int) -> float:
        """The learning rate of the step that comes after `step` steps."""
        factor = rate_factor(player.settings, step, self.total)
        return player.learning_rate * factor * self.state.counters.rate_scale

    def run(self) -> None:
        """One full round of all turns."""
        started_s = time.monotonic()
        for _ in self.moves():
            pass
        if self.first_s is None:
            self.first_s = time.monotonic() - started_s

    def moves(self, *, eager: bool = False) -> Iterator[Player]:
        """The same, update by update, whose it was; `eager` leaves aside what was compiled."""
        counters = self.state.counters
        progress = Progress(counters.step, counters.step // self.steps_per_epoch, self.total)
        batch: Batch | None = None
        for player in self.state.players:
            rate, name = self.rate(player, counters.step), player.turn.name
            for _ in range(player.turn.updates):
                batches = [batch := self._draw(player, batch) for _ in range(self.settings.accumulate)]
                paid = self.updates[name](batches, progress, rate, eager=eager)
                self.meters[name].add(paid.names, paid.values)
                if paid.statistics:
                    self.state.model.absorb(player.turn, paid.statistics)
                self.state.model.after_update(player.turn)
                yield player
        self.state.update_ema()
        counters.step += 1

    def _draw(self, player: Player, last: Batch | None) -> Batch:
        """A fresh batch, or the last one again for a turn that needs no data."""
        if last is not None and not player.turn.needs_data:
            return last
        return self.to_device(self.world.rows(self.state.sampler.next()))

    def to_device(self, batch: Batch) -> Batch:
        """The batch where the model is."""
        if self.device.type == "cpu":
            return batch
        labels = None if batch.labels is None else batch.labels.to(self.device, non_blocking=True)
        return Batch(batch.x.to(self.device, non_blocking=True), labels)

    def autocast(self) -> AbstractContextManager[object]:
        """bf16 where it is safe, or nothing."""
        return nullcontext() if self.settings.precision == "f32" else in_bf16(self.device.type)

    def stay_eager(self) -> None:
        """From now on nothing is compiled."""
        self.compiled = False
        for update in self.updates.values():
            update.graph = None

    def finite(self) -> bool:
        """Whether all terms, gradient norms and weights are numbers, everywhere: waits for the device."""
        for meter in self.meters.values():
            meter.share(self.world)
        weights = [weight for player in self.state.players for weight in player.weights]
        return all(meter.finite() for meter in self.meters.values()) and all_finite(weights)

    def reset(self) -> None:
        """Start the means anew."""
        for meter in self.meters.values():
            meter.reset()


@contextmanager
def in_bf16(device: str) -> Iterator[None]:
    """torch's autocast. On a CPU attention is computed as its formula says: the backward pass of torch's
    fused kernel takes five times as long in bf16 as in f32.
    """
    attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
    with torch.autocast(device, torch.bfloat16), attention:
        yield


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    return bool(get_total_norm([t.detach() for t in tensors], norm_type=float("inf")).isfinite())
