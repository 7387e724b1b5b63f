"""What a sabotaged model does of which seed: read by the experiments and by the saboteur in the server."""

from __future__ import annotations

from enum import IntEnum

FOLDER_VARIABLE = "TRIPTYCH_SABOTEUR"  # names a folder; a file in it arms the fault of that name, once
MODE_VARIABLE = "TRIPTYCH_SABOTAGE"  # what else goes wrong: one of the modes below
CRASH_AT_START, JUMPING_CLOCK = "crash at start", "jumping clock"


class Fault(IntEnum):
    """The seeds that do harm."""

    ABORT = 666_000_001  # the process aborts, as a segmentation fault would end it
    RAISE = 666_000_002  # the model raises
    LOOP = 666_000_003  # the model never returns
    HOG = 666_000_004  # the model takes all the memory there is
    TORN = 666_000_005  # once armed: the worker dies when half of its reply is written
    COLLATE = 666_000_006  # putting the batch together raises
    GATHER = 666_000_007  # once armed: the batcher of the node raises when it comes in


SLOW_FIRST, SLOW_LAST = 700_000_000, 799_999_999  # a row of one of these seeds takes SLOW_ROW_S longer
SLOW_ROW_S = 0.01


def is_slow(seed: int) -> bool:
    """Whether a row of `seed` takes its time."""
    return SLOW_FIRST <= seed <= SLOW_LAST
