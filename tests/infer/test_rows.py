"""Cutting rows into batches."""

from hypothesis import given
from hypothesis import strategies as st

from triptych.infer.rows import split

SIZES = st.sets(st.integers(1, 300), min_size=1).map(sorted)
POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@given(st.integers(1, 1000), SIZES, st.integers(0, 130))
def test_batches_hold_every_row_once_and_have_the_allowed_sizes(rows, sizes, most_padding):
    held = list(split(rows, sizes, most_padding))
    assert [row for part, _ in held for row in range(part.start, part.stop)] == list(range(rows))
    assert all(size in sizes and part.stop - part.start <= size for part, size in held)


@given(st.integers(1, 1000), SIZES, st.integers(0, 130))
def test_only_the_last_batch_is_padded(rows, sizes, most_padding):
    held = list(split(rows, sizes, most_padding))
    assert all(part.stop - part.start == size for part, size in held[:-1])
    part, size = held[-1]
    assert size - (part.stop - part.start) <= max(most_padding, sizes[0])


def test_a_hundred_rows_are_not_padded_where_sizes_add_up_to_them():
    assert [size for _, size in split(100, POWERS)] == [64, 32, 4]


def test_a_thousand_rows_are_a_few_large_batches():
    assert [size for _, size in split(1000, POWERS)] == [256, 256, 256, 128, 64, 32, 8]


def test_padding_that_costs_less_than_one_more_batch_is_taken():
    assert [size for _, size in split(253, POWERS)] == [256]
