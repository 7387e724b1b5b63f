"""Who may look at whom."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from triptych.learn.nn import Mask

MASKS = [Mask.causal(), Mask.window(3), Mask.window(1), Mask.prefix(2), Mask.full()]


def table(mask: Mask, size: int) -> Tensor:
    return mask.allowed(torch.arange(size), torch.arange(size))


def test_causal_sees_itself_and_the_past() -> None:
    assert table(Mask.causal(), 4).equal(torch.ones(4, 4).tril().bool())


def test_a_window_of_w_sees_w_positions_of_which_one_is_itself() -> None:
    seen = table(Mask.window(3), 6)
    assert seen.sum(1).tolist() == [1, 2, 3, 3, 3, 3]
    assert seen.diagonal().all()


def test_everyone_sees_the_prefix_and_the_rest_is_causal() -> None:
    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert table(Mask.prefix(2), 4).int().tolist() == expected


def test_full_sees_everything() -> None:
    assert table(Mask.full(), 5).all()


def test_a_window_as_wide_as_the_text_is_causal() -> None:
    assert table(Mask.window(7), 7).equal(table(Mask.causal(), 7))


def test_padding_hides_keys_and_may_hide_them_all() -> None:
    positions = torch.arange(4)
    seen = Mask.causal().allowed(positions, positions, key_lengths=torch.tensor([0, 2, 4]))
    assert seen.shape == (3, 1, 4, 4)
    assert not seen[0].any()
    assert not seen[1, 0, :, 2:].any()
    assert seen[2, 0].equal(table(Mask.causal(), 4))


def test_only_the_causal_mask_is_plain() -> None:
    assert [mask.is_plain_causal for mask in MASKS] == [True, False, False, False, False]


@pytest.mark.parametrize("mask", MASKS)
@given(start=st.integers(0, 8), size=st.integers(1, 4))
def test_queries_that_come_later_see_what_they_see_in_the_whole_table(
    mask: Mask, start: int, size: int
) -> None:
    end = start + size
    late = mask.allowed(torch.arange(start, end), torch.arange(end))
    assert late.equal(table(mask, end)[start:])
