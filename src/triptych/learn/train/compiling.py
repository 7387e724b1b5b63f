"""The training step as one graph: whether it is worth it, whether it can be had, and how it is made."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, Literal

import torch

from triptych.errors import ConfigError

WORTH_IT_FROM_UPDATES = 10_000  # fewer do not repay the time that compiling takes
CXX_COMPILERS = ("g++", "clang++", "c++")


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
    if device.type == "cpu" and not any(shutil.which(name) for name in CXX_COMPILERS):
        return "there is no C++ compiler"
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # each part of the tool chain has exceptions of its own
        return f"compiling a sine failed: {type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def compile_whole(method: MethodType) -> Callable[..., Any]:
    """`method` as one graph, autograd included. Only tensors' shapes and types are looked at before each
    call: of what else the graph depends on, nothing changes as long as its object lives. Graphs belong to a
    code object, so each method compiled here gets one of its own.
    """
    import torch._dynamo.config

    torch._dynamo.config.trace_autograd_ops = True
    own = FunctionType(method.__func__.__code__.replace(), method.__func__.__globals__)
    options: dict[str, Any] = {
        "fallback_random": True,
        "guard_filter_fn": torch.compiler.keep_tensor_guards_unsafe,
    }
    return torch.compile(MethodType(own, method.__self__), options=options)
