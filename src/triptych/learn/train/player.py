"""A turn with the state of its optimiser, AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from triptych.learn.maths.optimizers import EPSILON, decayed, descent, moment, step_size
from triptych.learn.models.base import Turn
from triptych.learn.train.settings import TurnSettings


@dataclass(frozen=True)
class Moments:
    """What AdamW remembers of one weight."""

    weight: nn.Parameter
    decay: float
    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, weight: nn.Parameter, decay: float) -> Moments:
        """Nothing remembered yet. Biases and gains, which have one axis, are never decayed."""
        count = torch.zeros((), device=weight.device)
        decay = decay if weight.ndim >= 2 else 0.0
        return cls(weight, decay, count, torch.zeros_like(weight), torch.zeros_like(weight))

    def tensors(self) -> dict[str, Tensor]:
        """By torch's own names."""
        return {"step": self.step, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}


class Pace(NamedTuple):
    """The learning rate, the step size with bias corrections, and epsilon-hat: 0-d tensors."""

    rate: Tensor
    size: Tensor
    floor: Tensor


class Player:
    """Who plays: its weights, what AdamW remembers of them, and the settings of its turn."""

    def __init__(self, turn: Turn, settings: TurnSettings) -> None:
        self.turn, self.settings = turn, settings
        given_rate, given_decay = settings.learning_rate, settings.weight_decay
        self.learning_rate = turn.learning_rate if given_rate is None else given_rate
        self.betas = settings.betas or turn.betas
        decay = turn.weight_decay if given_decay is None else given_decay
        weights = sorted(turn.parameters, key=lambda weight: weight.ndim < 2)
        self.moments = [Moments.of(weight, decay) for weight in weights]

    @property
    def weights(self) -> list[nn.Parameter]:
        """In the order of `moments`."""
        return [moments.weight for moments in self.moments]

    def pace(self, rate: float) -> Pace:
        """What the next update's formulas need besides tensors of weights."""
        count = torch.stack([m.step for m in self.moments]).amax() + 1  # a weight may be without gradients
        size = step_size(torch.full_like(count, rate), count, self.betas)
        return Pace(torch.full_like(count, rate), size, EPSILON * (1 - self.betas[1] ** count).sqrt())

    def move(self, gradients: Sequence[Tensor | None], rate: float | Pace) -> None:
        """One update of all weights that have a gradient: by torch's fused kernel, or with a `Pace` by the
        formulas, which become part of a compiled step's kernels.
        """
        pairs = [(m, g) for m, g in zip(self.moments, gradients, strict=True) if g is not None]
        if isinstance(rate, Pace):
            self._by_formula(pairs, rate)
        else:
            self._by_kernel(pairs, rate)

    def _by_formula(self, pairs: list[tuple[Moments, Tensor]], pace: Pace) -> None:
        for m, gradient in pairs:
            m.step.add_(1)
            m.exp_avg.copy_(moment(m.exp_avg, gradient, self.betas[0]))
            m.exp_avg_sq.copy_(moment(m.exp_avg_sq, gradient.square(), self.betas[1]))
            weight = decayed(m.weight, pace.rate, m.decay) if m.decay else m.weight
            m.weight.copy_(weight - descent(m.exp_avg, m.exp_avg_sq, pace.size, pace.floor))

    def _by_kernel(self, pairs: list[tuple[Moments, Tensor]], rate: float) -> None:
        for decay in sorted({m.decay for m, _ in pairs}, reverse=True):
            group = [(m, gradient) for m, gradient in pairs if m.decay == decay]
            adamw(
                [m.weight for m, _ in group],
                [gradient for _, gradient in group],
                [m.exp_avg for m, _ in group],
                [m.exp_avg_sq for m, _ in group],
                [],
                [m.step for m, _ in group],
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=rate,
                weight_decay=decay,
                eps=EPSILON,
                maximize=False,
            )
