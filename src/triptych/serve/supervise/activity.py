"""What a worker is doing right now, readable after its death: eight shared bytes, written around each call.

So a death is blamed on the work that was under way, and on nothing that merely waited in the same worker.
"""

from __future__ import annotations

import mmap
import os
from enum import IntEnum

CELL_BYTES = 8


class Doing(IntEnum):
    """The kinds of call a worker makes into its handler."""

    NOTHING = 0
    BATCH = 1
    OPEN = 2
    STEP = 3
    CLOSE = 4


class Activity:
    """The cell, mapped from `descriptor` by the node and by the worker."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, CELL_BYTES)
        self._cell = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> Activity:
        """A new cell that says NOTHING."""
        descriptor = os.memfd_create("triptych-activity")
        os.ftruncate(descriptor, CELL_BYTES)
        return cls(descriptor)

    def write(self, doing: Doing, id: int = 0) -> None:
        """Note what begins now; one aligned store, so a kill leaves the old or the new value."""
        self._cell[0] = doing << 56 | id

    def read(self) -> tuple[Doing, int]:
        """What was begun last, and on which work."""
        value = self._cell[0]
        return Doing(value >> 56), value & (1 << 56) - 1

    def close(self) -> None:
        """Unmap the cell and close its descriptor."""
        self._cell.release()
        self._map.close()
        os.close(self.descriptor)
