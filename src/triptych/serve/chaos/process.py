"""Facts about processes, read from /proc; and what one may do to a process from outside."""

from __future__ import annotations

import os
import resource
import select
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """The process ids of everything below `pid`, parents first; empty once it has ended."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in below:
            found += [child, *children(child)]
    return found


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 once the process has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * resource.getpagesize()


def address_space_bytes(pid: int) -> int:
    """Mapped memory, used or not: what RLIMIT_AS bounds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def open_files(pid: int) -> int:
    """How many descriptors it holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_gone(pids: list[int], timeout_s: float) -> list[int]:
    """Wait until all have ended; returns those that have not by then."""
    deadline_s = time.monotonic() + timeout_s
    left = []
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready and alive(pid):
                left.append(pid)
        finally:
            os.close(handle)
    return left
