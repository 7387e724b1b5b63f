"""The training step as one graph: whether it is worth it, whether it can be had, and how it is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Literal

import torch

from triptych.errors import ConfigError

WORTH_IT_FROM_UPDATES = 10_000  # fewer do not repay the time that compiling takes
ANSWER_WITHIN_S = 60.0  # an empty file takes a C++ compiler 0.1 s


class CompilingFailed(Exception):
    """torch could not make a graph of the step; nothing of it was computed."""


def is_compiled(
    wanted: bool | Literal["auto"],
    *,
    recorded: bool | None,
    updates: int,
    processes: int,
    device: torch.device,
) -> tuple[bool, list[str]]:
    """Whether the step is to be compiled, and what a person should know about it.

    Compiled and eager differ in the last bits, so `auto` does as `recorded`, what the checkpoint has, if it
    has something to say.

    Raises:
        ConfigError: it was asked for and cannot be had.
    """
    if wanted == "auto":
        likely = processes == 1 and updates >= WORTH_IT_FROM_UPDATES
        if not (likely if recorded is None else recorded):
            return False, []
        problem = cannot_compile(device)
        return not problem, [f"the step stays eager: {problem}"] if problem else []
    if wanted and processes > 1:
        raise ConfigError(
            f"got true with {processes} processes, whose gradients are averaged between them",
            where="train.compile",
            remedy='leave it at "auto", or train in one process',
        )
    if wanted and (problem := cannot_compile(device)):
        raise ConfigError(
            problem,
            where="train.compile",
            remedy="install g++ and Python's headers (on Debian g++ and python3-dev), or set it to false",
        )
    return wanted, []


def cannot_compile(device: torch.device) -> str:
    """Why nothing can be compiled for `device` here; empty if a small graph could be."""
    if device.type == "cpu" and (problem := compiler_problem()):
        return problem
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # each part of the tool chain has exceptions of its own
        return f"compiling a sine failed: {in_a_line(error)}"
    return ""


def compiler_problem() -> str:
    """What is wrong with the C++ compiler that torch would call; empty if it compiles an empty file.

    torch asks that compiler for its version and waits without end, and need not ask it at all for a graph
    that it has compiled before.
    """
    from torch._inductor import config

    name = config.cpp.cxx[-1]  # $CXX, or else g++ or clang++
    if shutil.which(name) is None:
        return "there is no C++ compiler"
    with tempfile.TemporaryDirectory() as folder:
        command = [name, "-x", "c++", "-c", os.devnull, "-o", os.path.join(folder, "empty.o")]
        silent = subprocess.DEVNULL
        try:
            subprocess.run(command, stdout=silent, stderr=silent, check=True, timeout=ANSWER_WITHIN_S)
        except subprocess.TimeoutExpired:
            return f"the C++ compiler `{name}` has not compiled an empty file in {ANSWER_WITHIN_S:.0f} s"
        except subprocess.CalledProcessError as error:
            return f"the C++ compiler `{name}` ends with status {error.returncode} on an empty file"
        except OSError as error:
            return f"the C++ compiler `{name}` cannot be started: {error.strerror}"
    return ""


def in_a_line(error: Exception) -> str:
    """The type of `error`, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def compile_whole(method: MethodType) -> Callable[..., Any]:
    """`method` as one graph, autograd included. Only tensors' shapes and types are looked at before each
    call: of what else the graph depends on, nothing changes as long as its object lives. Graphs belong to a
    code object, so each method compiled here gets one of its own.

    Raises:
        CompilingFailed: when called, if torch cannot make the graph.
    """
    import torch._dynamo.config

    torch._dynamo.config.trace_autograd_ops = True
    own = FunctionType(method.__func__.__code__.replace(), method.__func__.__globals__)
    options: dict[str, Any] = {
        "fallback_random": True,
        "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
    }
    graph = torch.compile(MethodType(own, method.__self__), options=options)

    def call(*arguments: Any) -> Any:
        try:
            return graph(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise CompilingFailed(f"compiling the step failed: {in_a_line(error)}") from error

    return call
