"""An asyncio task as a child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from triptych.serve.supervise.spec import ChildSpec, Exit, Restart, Shutdown


class TaskChild:
    """A running task. It contains Python exceptions, not segfaults: those need a process."""

    def __init__(self, run: Coroutine[Any, Any, Any], name: str) -> None:
        self.task = asyncio.create_task(run, name=name)

    @property
    def pid(self) -> None:
        """None: a task has no process of its own."""
        return None

    async def wait(self) -> Exit:
        """Return once the task has ended."""
        await asyncio.wait([self.task])
        if self.task.cancelled():
            return Exit(detail="cancelled")
        error = self.task.exception()
        return Exit(code=0) if error is None else Exit(exception=error)

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Cancel the task and wait for its end, at most `shutdown` seconds; `brutal_kill` does not wait."""
        self.task.cancel()
        timeout_s = (
            {"brutal_kill": 0.0, "infinity": None}.get(shutdown) if isinstance(shutdown, str) else shutdown
        )
        done, _ = await asyncio.wait([self.task], timeout=timeout_s)
        return (
            await self.wait() if done else Exit(detail=f"still running {timeout_s} s after it was cancelled")
        )


def task(
    id: str,
    run: Callable[[], Coroutine[Any, Any, Any]],
    *,
    restart: Restart = "permanent",
    shutdown: Shutdown = 5.0,
) -> ChildSpec:
    """The spec of a child that runs `run()` as a task."""

    async def start() -> TaskChild:
        return TaskChild(run(), id)

    return ChildSpec(id, start, restart, shutdown)
