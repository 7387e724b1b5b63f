"""A gateway and workers over RabbitMQ, seen from outside as one server."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from triptych.serve.chaos import process
from triptych.serve.chaos.program import START_TIMEOUT_S, STOP_TIMEOUT_S, Program, wait_until
from triptych.serve.chaos.server import URL, Server

WORKING = re.compile("working on")


class Machines(Server):
    """A `triptych gateway` at a free port, and a `triptych worker` of one process for each of `workers`.

    Its address, its node and its memory are the gateway's; its journal is everybody's.

    Args:
        broker: URL of the RabbitMQ between them.
        settings: as `--set` takes them; each goes to those that heed it.

    Attributes:
        machines: the programs of the workers that were started, in that order.
    """

    def __init__(
        self,
        bundles: Sequence[Path],
        *,
        broker: str,
        workers: int,
        log: Path,
        settings: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        of_workers = [setting for setting in settings if setting.startswith("workers.")]
        common = ["--broker", broker, "--log", "json"]
        words = ["gateway", *common, "--port", "0", "--jobs", "memory"]
        words += options(setting for setting in settings if setting not in of_workers)
        Program.__init__(self, words, until=URL, log=log, environment=environment)
        self.bundles, self.machines = list(bundles), list[Program]()
        self._count = workers
        self._worker = ["worker", *map(str, bundles), *common, "--workers", "1", *options(of_workers)]

    def start(self) -> None:
        """Start all of them."""
        super().start()
        for _ in range(self._count):
            self.add()

    def add(self) -> Program:
        """Start one more worker; returns at once."""
        log = self.log.with_suffix(f".worker-{len(self.machines)}.log")
        made = Program(
            self._worker, until=WORKING, log=log, environment=self._environment, journal=self.journal
        )
        made.start()
        self.machines.append(made)
        return made

    def worker_pids(self) -> list[int]:
        """The processes that are ready to work. The gateway may not have heard yet that one has died."""
        return [pid for pid in super().worker_pids() if process.alive(pid)]

    def lose(self, machine: Program) -> list[int]:
        """SIGKILL a worker's root; the processes that were below it."""
        below = process.children(machine.pid)
        machine.kill()
        return below

    def dismiss(self, machine: Program) -> int | None:
        """SIGTERM to a worker; its exit code, None if it still runs by the deadline."""
        machine.send_signal(signal.SIGTERM)
        return machine.wait()

    def until_up(self) -> None:
        """Return once all are up, and the gateway has heard of the workers."""
        super().until_up()
        for machine in self.machines:
            machine.until_up()
        wait_until(lambda: len(self.worker_pids()) == self._count, timeout_s=START_TIMEOUT_S)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """The exit code of the gateway, or else the first of its workers (stopped behind it) that is
        not 0; None if one of them still runs by the deadline.
        """
        ended = super().wait(timeout_s)
        if ended is None:
            return None
        running = [machine for machine in self.machines if machine.exit_code is None]
        for machine in running:
            machine.__exit__(None, None, None)
        self.exit_code = next((code for code in [ended, *(each.exit_code for each in running)] if code), 0)
        return self.exit_code


def options(settings: Iterable[str]) -> list[str]:
    """Settings as words of a command line."""
    return [word for setting in settings for word in ("--set", setting)]
