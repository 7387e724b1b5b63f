"""Laws of attention and of the language-model loss, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from triptych.learn.maths.attention import attend, rotary_angles, rotate
from triptych.learn.maths.language import bits_per_byte, next_token_nll, perplexity

F64 = torch.float64


def by_hand(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Attention written with loops and exponentials, zeros where nothing is allowed."""
    out = torch.zeros_like(query)
    for b, n, t in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])).tolist():
        weights = [
            math.exp((query[b, n, t] @ key[b, n, s]).item() / math.sqrt(query.shape[-1]))
            if allowed[t, s]
            else 0.0
            for s in range(key.shape[2])
        ]
        if sum(weights):
            out[b, n, t] = sum(w / sum(weights) * value[b, n, s] for s, w in enumerate(weights))
    return out


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
def test_attention_is_its_formula_for_any_mask(times: int, keys: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, 2, times, 3, dtype=F64, generator=generator)
    key, value = torch.randn(2, 2, 2, keys, 3, dtype=F64, generator=generator)
    allowed = torch.rand(times, keys, generator=generator) < 0.6
    torch.testing.assert_close(attend(query, key, value, allowed), by_hand(query, key, value, allowed))


def test_no_mask_is_the_causal_mask() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 4, dtype=F64)
    causal = torch.ones(5, 5).tril().bool()
    torch.testing.assert_close(attend(query, key, value, None), attend(query, key, value, causal))


def test_scores_have_variance_d_before_scaling_and_one_after() -> None:
    torch.manual_seed(0)
    size = 64
    query, key = torch.randn(2, 100_000, size, dtype=F64)
    scores = (query * key).sum(-1)
    assert scores.var().item() == pytest.approx(size, rel=0.03)
    assert (scores / math.sqrt(size)).var().item() == pytest.approx(1.0, rel=0.03)


def test_a_query_that_may_look_nowhere_gets_zeros_and_a_finite_gradient() -> None:
    query, key, value = torch.randn(3, 1, 1, 4, 8, requires_grad=True).unbind(0)
    allowed = torch.ones(4, 4, dtype=torch.bool)
    allowed[2] = False
    out = attend(query, key, value, allowed)
    assert out[0, 0, 2].tolist() == [0.0] * 8
    for gradient in torch.autograd.grad(out.square().sum(), (query, key, value)):
        assert gradient.isfinite().all()
        assert gradient.any()


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_rotary_scores_depend_on_the_distance_alone(i: int, j: int, shift: int) -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=F64)
    angles = rotary_angles(64, 8)

    def score(at_query: int, at_key: int) -> Tensor:
        turned = [
            rotate(x, angles[[at]].cos(), angles[[at]].sin()) for x, at in ((query, at_query), (key, at_key))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(i, j), score(i + shift, j + shift))


def test_rotation_keeps_lengths_and_position_zero() -> None:
    x, angles = torch.randn(2, 3, 10, 6, dtype=F64), rotary_angles(10, 6)
    turned = rotate(x, angles.cos(), angles.sin())
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert turned[:, :, 0].equal(x[:, :, 0])


def test_rotation_is_multiplication_of_complex_numbers() -> None:
    x, angles = torch.randn(1, 1, 10, 6, dtype=F64), rotary_angles(10, 6)
    product = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat((product.real, product.imag), dim=-1)
    torch.testing.assert_close(rotate(x, angles.cos(), angles.sin()), expected)


def test_a_uniform_guess_costs_log_v_nats_and_has_perplexity_v() -> None:
    nll = next_token_nll(torch.zeros(2, 5, 84, dtype=F64), torch.randint(84, (2, 5)))
    assert nll.shape == (2, 5)
    torch.testing.assert_close(nll, torch.full((2, 5), math.log(84), dtype=F64))
    assert perplexity(nll.mean()).item() == pytest.approx(84)


def test_each_token_pays_for_its_own_logits() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(3, 4, 7, dtype=F64), torch.randint(7, (3, 4))
    expected = -logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(next_token_nll(logits, tokens), expected)


def test_two_nats_are_2_885_bits() -> None:
    assert bits_per_byte(torch.tensor(2.0, dtype=F64), 1).item() == pytest.approx(2.885, abs=5e-4)


def test_bits_per_byte_of_a_coin_toss_per_byte_is_one() -> None:
    nll = next_token_nll(torch.zeros(1, 10, 2, dtype=F64), torch.zeros(1, 10, dtype=torch.long))
    assert bits_per_byte(nll.sum(), 10).item() == pytest.approx(1.0)
