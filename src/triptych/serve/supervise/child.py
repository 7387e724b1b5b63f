"""The first lines a spawned process runs: `-m triptych.serve.supervise.child PARENT NAME TARGET FD [LOG]`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when `parent` dies; exit now if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(parent: int, name: str, target: str, call: int, log: str = "") -> int:
    """Call `target` with the arguments found in file descriptor `call`; return its exit code.

    Args:
        log: how log lines look, see `start_logging`; as Python has it if empty.
    """
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_title(f"triptych: {name}")
    from importlib import import_module

    import msgspec

    if log:
        from triptych.serve.supervise.log_lines import start_logging

        start_logging("json" if log == "json" else "text")
    with os.fdopen(call, "rb") as file:
        file.seek(0)
        args = msgspec.msgpack.decode(file.read())
    module, _, function = target.partition(":")
    return getattr(import_module(module), function)(args) or 0


def set_title(title: str) -> None:
    """Show `title` in ps and top, if setproctitle is installed."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), *sys.argv[5:]))
