"""Laws of what a batch is expected to take."""

import pytest

from triptych.serve.pipeline.batch_times import BatchTimes


def test_nothing_is_known_at_first():
    assert BatchTimes().of(64) == 0.0


def test_a_row_of_a_size_that_was_never_seen_takes_what_one_of_a_smaller_batch_does_or_of_any():
    times = BatchTimes()
    times.note(8, 4.0)
    assert times.of(64) == 32.0
    assert times.of(1) == 0.5


def test_many_lone_rows_do_not_make_a_full_batch_look_slow():
    times = BatchTimes()
    times.note(64, 0.1)
    for _ in range(1000):
        times.note(1, 0.01)
    assert times.of(64) == pytest.approx(0.1)
    assert times.of(1) == pytest.approx(0.01)


def test_a_batch_takes_no_longer_than_its_rows_in_smaller_ones():
    times = BatchTimes()
    times.note(64, 1000.0)
    times.note(1, 0.01)
    assert times.of(64) == pytest.approx(0.64)


def test_the_fastest_of_the_last_is_the_measure():
    times = BatchTimes()
    times.note(1, 1.0)
    times.note(1, 50.0)
    assert times.of(1) == pytest.approx(1.05)
    times.note(1, 0.5)
    assert times.of(1) == 0.5
