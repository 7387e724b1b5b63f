"""Keeping a thread's stack for signal handlers what it was.

OpenVINO gives the thread that calls it a signal stack of its own (sigaltstack) and frees it with the model,
without taking it back. The next signal whose handler runs there, such as the end of a DataLoader's worker,
then writes into memory that is somebody else's by now.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class Stack(ctypes.Structure):
    """stack_t of signal.h."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


LIBC = ctypes.CDLL(None)


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread back the signal stack that it had before."""
    before = Stack()
    LIBC.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        LIBC.sigaltstack(ctypes.byref(before), None)
