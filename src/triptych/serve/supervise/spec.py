"""What a supervisor knows of a child: how to start it, whether to start it again, how to stop it."""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

import msgspec

Restart = Literal["permanent", "transient", "temporary"]
Shutdown = float | Literal["brutal_kill", "infinity"]
SIGNAL_NAMES = {number.value: number.name for number in signals.Signals}

log = logging.getLogger(__name__)


class Exit(msgspec.Struct, frozen=True):
    """How a child ended.

    Args:
        code: exit code of a process, 0 for a task that returned, None if a signal or an exception ended it.
        signal: number of the signal that ended a process.
        exception: what a task raised.
        detail: a sentence about the cause, if one is known.
        charged: whether this end counts against the supervisor's restart intensity. The death of a worker
            that was computing is charged to the work it held (`max_deliveries` bounds it) instead.
        refused: whether the child refused to start, for a reason that does not pass by trying again at once.
            It is tried again alone, ever more rarely, and not charged.
    """

    code: int | None = None
    signal: int | None = None
    exception: BaseException | None = None
    detail: str = ""
    charged: bool = True
    refused: bool = False

    @property
    def normal(self) -> bool:
        """Whether the child ended because it had finished."""
        return self.code == 0

    @property
    def reason(self) -> str:
        """One short phrase for logs: `exit code 1`, `SIGKILL`, `ValueError: ...`."""
        if self.exception is not None:
            text = f"{type(self.exception).__name__}: {self.exception}"
        elif self.signal is not None:
            text = SIGNAL_NAMES.get(self.signal, f"signal {self.signal}")
        else:
            text = f"exit code {self.code}"
        return f"{text} ({self.detail})" if self.detail else text


class Child(Protocol):
    """Something that runs and ends: a process, a task, a worker, or another supervisor."""

    @property
    def pid(self) -> int | None:
        """Process id, or None for what lives inside this process."""

    async def wait(self) -> Exit:
        """Return once the child has ended, however that came about; may be awaited any number of times."""

    async def stop(self, shutdown: Shutdown) -> Exit:
        """End the child: ask, wait for at most `shutdown` seconds, then end it by force."""


class ChildSpec(msgspec.Struct, frozen=True):
    """How to start, restart and stop one child.

    Args:
        id: name of the child, unique under its supervisor.
        start: starts the child and returns it; an exception counts as a death.
        restart: `permanent` always, `transient` only after an abnormal end, `temporary` never.
        shutdown: seconds to end in after being asked, or `brutal_kill` (do not ask), or `infinity`.
    """

    id: str
    start: Callable[[], Awaitable[Child]]
    restart: Restart = "permanent"
    shutdown: Shutdown = 5.0


class ChildInfo(msgspec.Struct, frozen=True):
    """One row of `which_children()`."""

    id: str
    child: Child | None
    pid: int | None
    state: Literal["running", "restarting", "stopped"]
    restarts: int


class ChildCounts(msgspec.Struct, frozen=True):
    """What `count_children()` answers: children specified, running now, and restarts so far."""

    specs: int
    active: int
    restarts: int


class Event(msgspec.Struct, frozen=True):
    """Something an operator wants to read about: who, what, why.

    `kind` is `started died restarted escalated stopped` (supervisors) or `ready hung redispatched` (pools).
    """

    kind: str
    supervisor: str
    child: str = ""
    pid: int | None = None
    reason: str = ""


def tell(listener: Callable[[Event], None], event: Event) -> None:
    """Call `listener`; if it raises, that is logged and harms nobody."""
    try:
        listener(event)
    except Exception:
        log.exception("the listener of %s raised", event.supervisor)
