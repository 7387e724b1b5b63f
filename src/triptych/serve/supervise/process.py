"""A process as a child: a fresh interpreter that dies with its parent, and whose death is an event.

Linux only: `pidfd_open` tells the event loop of the death; `PR_SET_PDEATHSIG`, which the child sets itself,
ends it when the *thread* that started it ends, so start processes from the thread that lives longest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from triptych.serve.supervise.log_lines import LogKind
from triptych.serve.supervise.spec import Exit, Shutdown


class ProcessChild:
    """A running process; made by `spawn`.

    Attributes:
        name: what it is called in logs and in its title.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.name = name
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[Exit] = self._loop.create_future()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Done once the process is dead and reaped."""
        return self._exited

    async def wait(self) -> Exit:
        """Return once the process is dead and reaped."""
        return await asyncio.shield(self._exited)

    def send_signal(self, number: int) -> None:
        """Send signal `number`, unless the process is already dead."""
        if not self._exited.done():
            signal.pidfd_send_signal(self._pidfd, number)

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """SIGTERM, at most `shutdown` seconds, then SIGKILL; `brutal_kill` begins with SIGKILL."""
        if shutdown == "brutal_kill":
            self.send_signal(signal.SIGKILL)
            return await self.wait()
        self.send_signal(signal.SIGTERM)
        return await self.end_within(shutdown)

    async def end_within(self, shutdown: float | str) -> Exit:
        """Wait for at most `shutdown` seconds, then SIGKILL."""
        try:
            async with asyncio.timeout(None if isinstance(shutdown, str) else shutdown):
                return await self.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            return await self.wait()

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        code = self._process.wait()
        os.close(self._pidfd)
        self._exited.set_result(Exit(code=code) if code >= 0 else Exit(signal=-code))


async def spawn(
    target: str,
    args: Any = None,
    *,
    name: str,
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    log: LogKind | None = None,
) -> ProcessChild:
    """Start `target(args)` in a fresh interpreter and return at once.

    The child ignores SIGINT (Ctrl-C reaches the whole terminal group; its parent decides), dies with its
    parent, and exits with 0 if the function returns, 1 (and the traceback on stderr) if it raises.

    Args:
        target: `package.module:function`; it is called with `args` and may return an exit code.
        args: anything msgpack can carry.
        name: title of the process.
        pass_fds: file descriptors the child inherits under the same numbers.
        environment: variables set on top of this process's own.
        log: how its log lines look, from its first on; as Python has it if None.
    """
    call = os.memfd_create("triptych-call")
    try:
        os.write(call, msgspec.msgpack.encode(args))
        command = [sys.executable, "-P", "-m", "triptych.serve.supervise.child"]
        process = subprocess.Popen(
            [*command, str(os.getpid()), name, target, str(call), *filter(None, [log])],
            pass_fds=(call, *pass_fds),
            env={**os.environ, **(environment or {})},
        )
    finally:
        os.close(call)
    return ProcessChild(process, name)
