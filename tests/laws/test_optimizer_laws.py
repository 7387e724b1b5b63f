"""The optimiser's formulas against torch's own implementation."""

import pytest
import torch

from triptych.learn.maths.optimizers import clip_factor
from triptych.learn.models.base import Turn
from triptych.learn.train.player import Player
from triptych.learn.train.settings import TurnSettings


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_formulas_and_the_fused_kernel_walk_the_same_path_as_torchs_adamw(decay: float) -> None:
    torch.manual_seed(0)
    start = torch.randn(3, 5), torch.randn(5)
    ours, fused, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(3))
    settings = TurnSettings(learning_rate=0.01, weight_decay=decay)
    players = [Player(Turn("it", tuple(weights)), settings) for weights in (ours, fused)]
    groups = [{"params": theirs[:1], "weight_decay": decay}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01)
    for _ in range(20):
        gradients = [torch.randn_like(w) * 10 for w in start]
        for weight, gradient in zip(theirs, gradients, strict=True):
            weight.grad = gradient
        reference.step()
        with torch.no_grad():
            players[0].move(gradients, players[0].pace(0.01))
            players[1].move(gradients, 0.01)
    for mine, kernel, expected in zip(ours, fused, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(kernel, expected, rtol=2e-6, atol=2e-6)


def test_a_gradient_within_the_limit_is_left_alone_and_a_longer_one_gets_its_length() -> None:
    assert clip_factor(torch.tensor(0.5), 1.0) == 1
    assert clip_factor(torch.tensor(4.0), 1.0).item() == pytest.approx(0.25, rel=1e-5)
    assert clip_factor(torch.tensor(0.0), 1.0) == 1


def test_a_first_weight_without_gradients_does_not_hold_the_others_back() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(5)]
    pairs = [[torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(start.clone())] for _ in range(2)]
    ours, kernel = (Player(Turn("it", tuple(pair)), TurnSettings(learning_rate=0.01)) for pair in pairs)
    for gradient in gradients:
        with torch.no_grad():
            ours.move([None, gradient], ours.pace(0.01))
            kernel.move([None, gradient], 0.01)
    torch.testing.assert_close(pairs[0][1], pairs[1][1], rtol=2e-6, atol=2e-6)
    assert torch.equal(pairs[0][0], torch.ones(2, 2))
