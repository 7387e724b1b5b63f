"""The NaN guard: find the first tensor that broke, go back to the last good state, go on with half the step
size.
"""

from __future__ import annotations

from typing import Any

from triptych.errors import NonFiniteError
from triptych.learn.train.player import Player
from triptych.learn.train.state import Tensors
from triptych.learn.train.steps import Steps

RATE_FACTOR = 0.5


class Guard:
    """Keeps a copy of the last state that was checked and found good."""

    def __init__(self, steps: Steps, retries: int) -> None:
        self.steps, self.retries = steps, retries
        self._good: tuple[Tensors, dict[str, Any]] = steps.state.snapshot()

    def keep(self) -> None:
        """The present state is good: this is where to go back to."""
        self._good = self.steps.state.snapshot()

    def roll_back(self) -> str:
        """Restore the last good state with half the step size; return what broke, for the log.

        Raises:
            NonFiniteError: that was one roll-back too many.
        """
        state = self.steps.state
        broken_at = state.counters.step
        self.restore()
        what = self._replay(broken_at)
        self.restore()
        state.counters.rate_scale *= RATE_FACTOR
        state.counters.rollbacks += 1
        if state.counters.rollbacks > self.retries:
            raise NonFiniteError(
                f"{what}, after {self.retries} roll-backs with a smaller step each",
                where="training",
                remedy="lower train.learning_rate, set train.grad_clip, or look for such values in the data",
            )
        self._good[1]["counters"].update(
            rate_scale=state.counters.rate_scale, rollbacks=state.counters.rollbacks
        )
        return what

    def restore(self) -> None:
        """Go back to the last good state."""
        self.steps.state.load(*self._good)
        self.steps.reset()

    def _replay(self, until: int) -> str:
        """Take the same steps again, looking after each update: they are the same to the bit, so it breaks
        again. What was compiled is run eagerly here, where each gradient can be looked at.
        """
        state, steps = self.steps.state, self.steps
        while state.counters.step < until:
            step = state.counters.step + 1
            for player in steps.moves(eager=True):
                if not steps.finite():
                    return f"{self._first_bad(player)} at step {step}"
        return f"a value at or before step {until}"

    def _first_bad(self, player: Player) -> str:
        turn = player.turn.name
        if bad := self.steps.meters[turn].broken():
            return f"loss term `{bad[-1]}` of turn `{turn}` is not finite"
        name_of = {id(p): name for name, p in self.steps.state.model.named_parameters()}
        gradients = self.steps.updates[turn].gradients
        for weight, gradient in zip(player.weights, gradients, strict=True):
            if gradient is not None and not gradient.isfinite().all():
                return f"the gradient of `{name_of[id(weight)]}` is not finite"
        for weight in player.weights:
            if not weight.isfinite().all():
                return f"the weight `{name_of[id(weight)]}` is not finite"
        return f"the gradient norm of turn `{turn}` is not finite"
