"""Rows of noise: what several processes draw is what one draws, cut into rows."""

import pytest
import torch
from torch.nn.functional import dropout, scaled_dot_product_attention

from triptych.errors import ConfigError
from triptych.learn.train.world import RowsOfNoise, World

ROWS, WHOLE = 3, 6


def attend(x: torch.Tensor) -> torch.Tensor:
    mixed = x.permute(0, 2, 1, 3)
    return scaled_dot_product_attention(mixed, mixed, mixed, None, 0.5, is_causal=True)


DRAWS = {
    "randn": lambda x: torch.randn(len(x), 4),
    "randn of a tuple": lambda x: torch.randn((len(x), 4)),
    "rand": lambda x: torch.rand(len(x), 1),
    "randn_like": torch.randn_like,
    "rand_like": torch.rand_like,
    "bernoulli": torch.bernoulli,
    "dropout": lambda x: dropout(x, 0.5, training=True),
    "dropout of a permuted tensor": lambda x: dropout(x.permute(0, 2, 1, 3), 0.5, training=True),
    "attention": attend,
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_rows_of_all_processes_are_the_draw_of_one_and_leave_the_same_generator(draw) -> None:
    x = torch.rand(WHOLE, 5, 2, 8)
    torch.manual_seed(0)
    whole, after = draw(x), torch.get_rng_state()
    parts = []
    for rank in range(2):
        torch.manual_seed(0)
        with RowsOfNoise(rank, 2, ROWS):
            parts.append(draw(x[rank * ROWS : (rank + 1) * ROWS]))
        assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(torch.cat(parts), whole)


def test_gradients_pass_through_what_was_cut() -> None:
    x = torch.rand(ROWS, 4, requires_grad=True)
    with RowsOfNoise(1, 2, ROWS):
        kept = dropout(x, 0.5, training=True)
    (gradient,) = torch.autograd.grad(kept.sum(), x)
    torch.testing.assert_close(gradient, kept.detach() / x.detach())


def test_one_process_alone_takes_every_batch() -> None:
    World().check(7)


def test_batches_that_cannot_be_shared_out_are_refused() -> None:
    three = World()
    three.size = 3
    with pytest.raises(ConfigError, match="batches of 7 cannot be shared by 3 processes"):
        three.check(7)
