"""Which machine this is, as far as an engine's speed and bytes go."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MODEL, FLAGS = ("model name", "CPU part"), ("flags", "Features")  # x86, ARM
ENGINE_PACKAGES = ("onnxruntime", "openvino")


def processor() -> str:
    """The processor's model, and 8 hex digits that stand for its instruction sets.

    Two machines of which this is equal run the same kernels; a virtual machine may hide some instruction
    sets.
    """
    try:
        lines = CPUINFO.read_text("utf-8", "replace").partition("\n\n")[0].splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    model = next((said[name] for name in MODEL if name in said), platform.machine())
    flags = " ".join(sorted(next((said[name] for name in FLAGS if name in said), "").split()))
    return f"{model} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def versions() -> dict[str, str]:
    """The versions of the engines that are installed: another version has other kernels."""
    found = {}
    for package in ENGINE_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def give_back_memory() -> None:
    """Return what this process has freed to the system; glibc keeps up to tens of megabytes of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
