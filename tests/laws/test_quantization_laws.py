"""Laws of quantisation, in float64, and of what must be exact in float32 and bfloat16."""

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from triptych.learn.maths import quantization as vq
from triptych.learn.nn import FiniteScalarQuantizer, MovingQuantizer, VectorQuantizer

F64 = torch.float64
levels = st.lists(st.integers(2, 256), min_size=1, max_size=2) | st.lists(
    st.integers(2, 9), max_size=4, min_size=3
)


def cloud(rows: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, dim, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_code_is_that_of_the_smallest_distance() -> None:
    z, codebook = cloud(200, 5), cloud(17, 5, seed=1)
    assert vq.nearest(z, codebook).equal(torch.cdist(z, codebook).argmin(1))


def test_straight_through_gives_the_code_and_the_gradient_of_the_vector() -> None:
    z, code, slope = cloud(3, 4).requires_grad_(), cloud(3, 4, seed=1).requires_grad_(), cloud(3, 4, seed=2)
    through = vq.straight_through(z, code)
    torch.testing.assert_close(through, code)
    (through * slope).sum().backward()
    assert z.grad is not None
    assert z.grad.equal(slope)
    assert code.grad is None


def test_the_two_penalties_are_one_distance_that_pulls_at_one_end_each() -> None:
    z, code = cloud(3, 4).requires_grad_(), cloud(3, 4, seed=1).requires_grad_()
    held, moved = vq.commitment(z, code), vq.codebook_loss(z, code)
    assert held.equal(moved)
    (of_z,) = torch.autograd.grad(held.sum(), z)
    (of_code,) = torch.autograd.grad(moved.sum(), code)
    torch.testing.assert_close(of_z, 2 * (z - code))
    torch.testing.assert_close(of_code, -of_z)
    assert not vq.commitment(z.detach(), code).requires_grad
    assert not vq.codebook_loss(z, code.detach()).requires_grad


def test_what_codes_get_of_two_halves_is_on_average_what_they_get_of_the_whole() -> None:
    z, index = cloud(40, 3), torch.arange(40) % 7
    whole = vq.per_code(z, index, 9)
    halves = [vq.per_code(z[part], index[part], 9) for part in (slice(0, 20), slice(20, 40))]
    torch.testing.assert_close(whole, (halves[0] + halves[1]) / 2)
    torch.testing.assert_close(9 * whole.mean(0), z.mean(0))
    assert vq.per_code(torch.ones(40, dtype=F64), index, 9).sum().item() == pytest.approx(1)


def test_under_moving_averages_of_one_batch_codes_are_means_and_variances_those_of_samples() -> None:
    z, index = cloud(60, 3) + 5, torch.arange(60) % 4
    kinds = torch.ones(60, dtype=F64), z, z.square().sum(1)
    usage, total, square = (
        vq.ema(torch.zeros_like(n), n, 0.9) for n in (vq.per_code(v, index, 4) for v in kinds)
    )
    codebook = vq.code(total, usage)
    variance = vq.variance(square, usage, codebook)
    for k in range(4):
        torch.testing.assert_close(codebook[k], z[index == k].mean(0))
        torch.testing.assert_close(variance[k], z[index == k].var(0, correction=0).mean())


def test_redrawn_codes_have_the_place_and_the_spread_of_those_they_stand_beside() -> None:
    torch.manual_seed(0)
    where, variance = torch.full((100_000, 2), 3.0, dtype=F64), torch.full((100_000,), 0.25, dtype=F64)
    drawn = vq.redrawn(where, variance, torch.randn_like(where))
    assert drawn.mean().item() == pytest.approx(3.0, abs=5 * 0.5 / math.sqrt(200_000))
    assert drawn.var().item() == pytest.approx(0.25, rel=0.02)


@given(st.integers(1, 300))
def test_perplexity_is_how_many_codes_are_used_equally(codes: int) -> None:
    usage = torch.zeros(300, dtype=F64)
    usage[:codes] = 1 / codes
    assert vq.perplexity(usage).item() == pytest.approx(codes)


@given(levels, st.randoms(use_true_random=False))
def test_indices_and_levels_are_the_same_number_written_twice(sizes: list[int], random: Random) -> None:
    index = torch.tensor([random.randrange(math.prod(sizes)) for _ in range(20)])
    quantizer = FiniteScalarQuantizer(sizes)
    digits = vq.digits_of(index, quantizer.places, quantizer.levels)
    assert (digits >= 0).all()
    assert (digits < torch.tensor(sizes)).all()
    assert vq.index_of(digits, quantizer.places).equal(index)


@given(levels, st.lists(st.floats(-50, 50), min_size=4, max_size=4))
def test_bounded_steps_round_to_levels_that_there_are(sizes: list[int], z: list[float]) -> None:
    steps = vq.bounded(torch.tensor(z[: len(sizes)], dtype=F64), torch.tensor(sizes)).round()
    assert (steps >= 0).all()
    assert (steps <= torch.tensor(sizes) - 1).all()


@given(levels, st.randoms(use_true_random=False))
def test_index_to_code_to_index_is_exact_in_f32_and_bf16_for_scalars(
    sizes: list[int], random: Random
) -> None:
    quantizer = FiniteScalarQuantizer(sizes)
    index = torch.tensor([random.randrange(quantizer.codes) for _ in range(20)])
    code = quantizer.lookup(index)
    assert quantizer.number(code).equal(index)
    assert quantizer.number(code.bfloat16()).equal(index)
    assert -1 <= code.min() <= code.max() <= 1


@pytest.mark.parametrize("kind", [VectorQuantizer, MovingQuantizer])
def test_index_to_code_to_index_is_exact_in_f32_and_bf16_for_vectors(kind: type[VectorQuantizer]) -> None:
    torch.manual_seed(0)
    quantizer, index = kind(512, 8), torch.arange(512)
    assert quantizer.number(quantizer.lookup(index)).equal(index)
    assert quantizer.number(quantizer.lookup(index).bfloat16()).equal(index)


def test_the_first_batch_puts_used_codes_on_their_means_and_redraws_the_others_among_them() -> None:
    torch.manual_seed(0)
    quantizer, z = MovingQuantizer(8, 2, restart_below=0.25), torch.randn(500, 2) + 100
    quantizer.absorb(quantizer.statistics(z, quantizer.indices(z)))
    assert ((quantizer.codebook - 100).norm(dim=1) < 6).all()
    for _ in range(50):
        quantizer.absorb(quantizer.statistics(z, quantizer.indices(z)))
    assert len(quantizer.indices(z).unique()) == 8
    assert quantizer.perplexity() > 5


def test_without_restarts_codes_that_nobody_uses_stay_where_they_are() -> None:
    torch.manual_seed(0)
    quantizer, z = MovingQuantizer(8, 2), torch.randn(500, 2) + 100
    before = quantizer.codebook.clone()
    for _ in range(50):
        quantizer.absorb(quantizer.statistics(z, quantizer.indices(z)))
    used = quantizer.indices(z).unique()
    assert len(used) == 1
    idle = [code for code in range(8) if code not in used]
    assert quantizer.codebook[idle].equal(before[idle])
