"""OpenVINO leaves a thread's signal stack as it was."""

import ctypes
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import triptych
from triptych.infer import machine
from triptych.infer.open_vino import plain
from triptych.infer.signal_stack import LIBC, Stack, signal_stack_kept


def stack() -> tuple[int | None, int, int]:
    found = Stack()
    LIBC.sigaltstack(None, ctypes.byref(found))
    return found.pointer, found.flags, found.size


def test_whoever_changes_the_signal_stack_inside_it_is_as_before_afterwards() -> None:
    before, memory = stack(), ctypes.create_string_buffer(65536)
    with signal_stack_kept():
        LIBC.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, 65536)), None)
        assert stack()[0] == ctypes.addressof(memory)
    assert stack() == before


@pytest.mark.skipif("openvino" not in machine.versions(), reason="OpenVINO is not installed")
def test_no_call_of_openvino_changes_it(vae_bundle: Path) -> None:
    """Only compiling does, and there it is given back: a call need not look."""
    z, found = np.zeros((1, 4), np.float32), []
    before = stack()
    with triptych.load(vae_bundle, engine="openvino") as engine:
        engine.open()
        for rows in (1, 8, 8):
            engine.run("decode", {"z": z.repeat(rows, 0)})
            found.append(stack())

        def elsewhere() -> None:
            untouched = stack()
            engine.run("decode", {"z": z})
            found.append(before if stack() == untouched else stack())

        thread = Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [*found, stack()] == [before] * 5


@pytest.mark.parametrize("name", ["int64", "int32", "float32", "bool"])
def test_plain_arrays_have_numpy_s_usual_type_and_the_same_values(name: str) -> None:
    array = np.arange(4).astype(name)
    assert plain(array).dtype.char == np.dtype(name).char
    assert (plain(np.arange(4, dtype=np.longlong)) == np.arange(4)).all()
    assert plain(np.arange(4, dtype=np.longlong)).dtype.char == np.dtype("int64").char
