"""What stands behind triptych.h: this runs inside libtriptych, once, when its first function is called."""

import itertools
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from libtriptych import ffi, lib

import triptych
from triptych.bundle.manifest import TextSampler
from triptych.errors import InputError
from triptych.infer import Engine

engines: dict[int, Engine] = {}
numbers = itertools.count(1)  # an engine's address in C is its number: never followed, never used again
lock = threading.Lock()


def exported(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function one of the library's: what it raises becomes the thread's last error, and NULL."""

    @wraps(function)
    def guarded(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:  # nothing may cross into C
            message = f"{type(error).__name__}: {error}"
        lib.set_last_error(message.encode("utf-8", "replace"))
        return ffi.NULL

    return ffi.def_extern()(guarded)


@exported
def python_load(folder: Any, threads: int) -> Any:
    engine = triptych.load(text(folder, "folder"), threads=threads or None)
    with lock:
        number = next(numbers)
        engines[number] = engine
    return ffi.cast("triptych_engine *", number)


@exported
def python_generate(engine: Any, prompt: Any, max_tokens: int, temperature: float, seed: int) -> Any:
    settings = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    data = opened(engine).generate(text(prompt, "prompt"), **settings).text.encode()
    return copied(data.replace(b"\0", "\N{SYMBOL FOR NULL}".encode()) + b"\0", "char *")


@exported
def python_sample(engine: Any, n: int, seed: int, size: Any) -> Any:
    found = opened(engine)
    if isinstance(found.manifest.sampler, TextSampler):
        raise InputError("is a text model", where=found.manifest.name, remedy="use triptych_generate")
    if size == ffi.NULL:
        raise InputError("got NULL", where="size", valid="where to write the size of a sample")
    samples = np.ascontiguousarray(found.sample(n, seed=seed), np.float32)
    size[0] = samples[0].size
    return copied(samples.tobytes(), "float *")


@ffi.def_extern()
def python_close(engine: Any) -> None:
    with lock:
        found = engines.pop(int(ffi.cast("intptr_t", engine)), None)
    if found is not None:
        found.close()


def opened(engine: Any) -> Engine:
    """The engine of a pointer. Raises `InputError` for one that is closed or never was."""
    with lock:
        found = engines.get(int(ffi.cast("intptr_t", engine)))
    if found is None:
        raise InputError(
            "is not open", where="engine", valid="what triptych_load returned, until triptych_close"
        )
    return found


def text(pointer: Any, name: str) -> str:
    """The text of a C string. Raises `InputError` for NULL and for what is no UTF-8."""
    if pointer == ffi.NULL:
        raise InputError("got NULL", where=name, valid="a string")
    try:
        return str(ffi.string(pointer), "utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error})", where=name) from error


def copied(data: bytes, kind: str) -> Any:
    """Bytes in memory that `free` releases."""
    memory = lib.malloc(max(len(data), 1))
    if memory == ffi.NULL:
        raise MemoryError(f"no memory for {len(data)} bytes")
    ffi.memmove(memory, data, len(data))
    return ffi.cast(kind, memory)
