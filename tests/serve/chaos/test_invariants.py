"""Each of the seven is seen to fail when it is broken: a check that cannot fail proves nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from triptych.serve.chaos.invariants import check
from triptych.serve.chaos.lab import End, exit_codes
from triptych.serve.chaos.load import Answer
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.trial import Trial
from triptych.serve.chaos.watch import Look

REFERENCE = {1: "one", 2: "two"}


def answer(number: int = 1, digest: str = "one", **fields: Any) -> Answer:
    given = {"error": "", "answered_at_s": 1.0, "elapsed_s": 0.1, "status": 200, "timeout_s": 2.0}
    return Answer(number, "vae", digest, **{**given, **fields})


def trial(*answers: Answer, counted: dict[int, int] | None = None, **options: bool) -> Trial:
    made = Trial(Server([], workers=1, log=Path("unused")), [], **options)
    made.load.tally.answers.extend(answers)
    made.counted = Counter({200: len(answers)} if counted is None else counted)
    made.watch.truths = [(0.0, True)]
    made.watch.capacity = 8
    return made


def broken(made: Trial) -> set[str]:
    return {name for name, found in check([made], REFERENCE, 1.0).items() if not found.held}


def test_a_good_trial_breaks_none() -> None:
    assert broken(trial(answer(), answer(), answer(2, "two"))) == set()


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (trial(answer(elapsed_s=3.5)), {"I1"}),
        (trial(answer(digest="", status=0, error="ConnectionResetError: "), counted={200: 1}), {"I1", "I2"}),
        (trial(answer(), counted={200: 2}), {"I2"}),
        (trial(answer(), counted={500: 1}), {"I2"}),
        (trial(answer(), answer(digest="other")), {"I3", "I4"}),
        (trial(answer(2, "one")), {"I4"}),
        (trial(answer(seed_echoed=False)), {"I4"}),
    ],
)
def test_an_answer_that_is_late_lost_or_another_s_is_named(made: Trial, names: set[str]) -> None:
    assert broken(made) == names


def test_what_is_left_inside_breaks_the_balance() -> None:
    made = trial(answer())
    made.left_over = "1 in the queue, 0 in workers"
    assert broken(made) == {"I2"}


def test_a_reset_is_allowed_where_the_node_dies_and_a_hang_is_not() -> None:
    reset = answer(digest="", status=0, error="RemoteDisconnected: ")
    assert broken(trial(reset, counted={}, node_dies=True)) == set()
    hang = answer(digest="", status=0, error="TimeoutError: timed out", elapsed_s=12.0)
    assert broken(trial(hang, counted={}, node_dies=True)) == {"I1"}


def test_readiness_has_a_second_to_tell_the_truth() -> None:
    made = trial(answer())
    made.watch.truths = [(0.0, True), (10.0, False), (20.0, None), (30.0, True)]
    made.watch.looks = [Look(9.0, 0.1, True), Look(10.5, 0.1, True), Look(11.5, 0.1, False)]
    made.watch.looks += [Look(22.0, 5.0, True), Look(31.5, 0.1, True)]
    assert broken(made) == set()
    made.watch.looks.append(Look(11.6, 0.1, True))
    assert broken(made) == {"I5"}
    made.watch.looks[-1] = Look(32.0, 1.5, True)
    assert broken(made) == {"I5"}


def test_a_queue_or_a_memory_beyond_its_bound_is_named() -> None:
    made = trial(answer())
    made.watch.deepest = 9
    assert broken(made) == {"I6"}
    made = trial(answer())
    made.watch.first_bytes, made.watch.most_bytes = 2**20, 100 * 2**20
    assert broken(made) == {"I6"}


def test_exit_codes() -> None:
    assert exit_codes([End(True, 0), End(False, 1), End(False, -9)]).held
    assert not exit_codes([End(True, 1)]).held
    assert not exit_codes([End(False, 0)]).held
    assert not exit_codes([End(True, None)]).held
