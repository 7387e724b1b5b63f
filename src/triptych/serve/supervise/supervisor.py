"""A supervisor: starts children in order, restarts who dies, stops in reverse, knows when to give up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from triptych.errors import ConfigError, SupervisorFailed
from triptych.serve.supervise.intensity import Backoff, Intensity
from triptych.serve.supervise.spec import (
    Child,
    ChildCounts,
    ChildInfo,
    ChildSpec,
    Event,
    Exit,
    Shutdown,
    tell,
)

PATIENCE = Backoff(first_s=0.5, longest_s=15.0)
Strategy = Literal["one_for_one", "rest_for_one", "one_for_all"]


def ignore(event: Event) -> None:
    """The listener of a supervisor that nobody listens to."""


class Entry:
    """One child and what became of it."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.child: Child | None = None
        self.watcher: asyncio.Task[None] | None = None
        self.restarts = self.refusals = 0
        self.restarting = False


class Supervisor:
    """Keeps children alive; is itself a child, so supervisors nest.

    Args:
        children: specs, in the order in which to start them.
        name: how events call this supervisor.
        strategy: whom a death takes along: nobody (`one_for_one`), those started later (`rest_for_one`), all.
        max_restarts: more than this many charged deaths within `max_seconds` end the supervisor itself.
        backoff: how long to wait before a restart.
        patience: how long to wait before a child that refused to start is tried again; others are restarted
            meanwhile.
        on_event: called with every `Event`.
        clock: monotonic seconds. sleep: waits that many seconds. Both can be replaced in tests.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        name: str = "supervisor",
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        max_seconds: float = 5.0,
        backoff: Backoff | None = None,
        patience: Backoff = PATIENCE,
        on_event: Callable[[Event], None] = ignore,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        names = [spec.id for spec in children]
        if len(set(names)) < len(names):
            raise ConfigError(f"got {names}", where=f"children of {name}", valid="ids that are all different")
        self.name = name
        self._entries = [Entry(spec) for spec in children]
        self._strategy = strategy
        self._intensity = Intensity(max_restarts, max_seconds, clock)
        self._backoff, self._patience = backoff or Backoff(), patience
        self._on_event = on_event
        self._sleep = sleep
        self._exits: asyncio.Queue[tuple[Entry, Child | None, Exit | None]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._end: Exit | None = None
        self._ended = asyncio.Event()

    @property
    def pid(self) -> None:
        """None: a supervisor has no process of its own."""
        return None

    async def start(self) -> None:
        """Start every child, in order.

        Raises: SupervisorFailed if starts fail more often than `max_restarts` allows; nobody is left running.
        What has ended cannot be started again: its own cause is raised, so that the parent hears it.
        """
        self._check_not_over()
        try:
            for entry in self._entries:
                await self._bring_up(entry)
                self._check_not_over()
        except BaseException:
            await self._take_down(self._entries)
            raise
        self._task = asyncio.create_task(self._supervise(), name=f"supervisor {self.name}")

    def _check_not_over(self) -> None:
        if self._end is not None:
            raise self._end.exception or ConfigError("has been stopped", where=self.name)

    async def run(self) -> None:
        """Start, then supervise until `stop()`.

        Raises: SupervisorFailed when restarts exceed the intensity; every child has been stopped by then.
        """
        await self.start()
        end = await self.wait()
        if end.exception is not None:
            raise end.exception

    async def wait(self) -> Exit:
        """Return once the supervisor has been stopped (code 0) or has given up (its exception)."""
        while self._end is None:
            await self._ended.wait()
        return self._end

    async def stop(self, shutdown: Shutdown = "infinity") -> Exit:
        """Stop every child in reverse order, within its own `shutdown`; `brutal_kill` is passed on."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._take_down(self._entries, "brutal_kill" if shutdown == "brutal_kill" else None)
        self._tell("stopped")
        return self._finish(Exit(code=0))

    def which_children(self) -> list[ChildInfo]:
        """The children in start order."""
        return [self._describe(entry) for entry in self._entries]

    def count_children(self) -> ChildCounts:
        """How many children there are, and how often they were restarted."""
        active = sum(entry.child is not None for entry in self._entries)
        return ChildCounts(len(self._entries), active, sum(entry.restarts for entry in self._entries))

    def _finish(self, end: Exit) -> Exit:
        """Note how the supervisor ended; the first time counts."""
        self._end = self._end or end
        self._ended.set()
        return self._end

    @staticmethod
    def _describe(entry: Entry) -> ChildInfo:
        pid = entry.child.pid if entry.child else None
        state: Literal["running", "restarting", "stopped"] = "running" if entry.child else "stopped"
        return ChildInfo(
            entry.spec.id, entry.child, pid, "restarting" if entry.restarting else state, entry.restarts
        )

    def _tell(self, kind: str, entry: Entry | None = None, reason: str = "") -> None:
        child = entry.child if entry else None
        id, pid = entry.spec.id if entry else "", child.pid if child else None
        tell(self._on_event, Event(kind, self.name, id, pid, reason))

    async def _supervise(self) -> None:
        try:
            while True:
                entry, child, end = await self._exits.get()
                if entry.child is not child:  # it was taken down on purpose in the meantime
                    continue
                if end is None:
                    entry.restarts += 1
                    await self._bring_up(entry, "restarted")
                else:
                    await self._handle_exit(entry, end)
        except Exception as error:
            try:
                await self._take_down(self._entries)
            finally:
                self._finish(Exit(exception=error))

    async def _handle_exit(self, entry: Entry, end: Exit) -> None:
        self._tell("died", entry, end.reason)
        entry.child = entry.watcher = None
        if entry.spec.restart == "temporary" or (entry.spec.restart == "transient" and end.normal):
            return
        if end.refused:
            entry.refusals += 1
            entry.restarting = True
            delay_s = self._patience.delay_s(entry.refusals + 1)
            entry.watcher = asyncio.create_task(self._try_again(entry, delay_s))
            return
        entry.refusals = 0
        delay_s = self._charge(entry, end) if end.charged else 0.0
        position = self._entries.index(entry)
        first = {"one_for_one": position, "rest_for_one": position, "one_for_all": 0}[self._strategy]
        last = position + 1 if self._strategy == "one_for_one" else len(self._entries)
        affected = [e for e in self._entries[first:last] if e is entry or e.child is not None]
        await self._take_down(affected)
        to_restart = [other for other in affected if other.spec.restart != "temporary"]
        for other in to_restart:
            other.restarting = True
        await self._sleep(delay_s)
        for other in to_restart:
            other.restarts += 1
            await self._bring_up(other, "restarted")

    def _charge(self, entry: Entry, end: Exit) -> float:
        recent = self._intensity.charge()
        if recent <= self._intensity.max_restarts:
            return self._backoff.delay_s(recent)
        self._tell("escalated", entry, end.reason)
        raise SupervisorFailed(
            f"child {entry.spec.id} died once too often, the last time of {end.reason}",
            where=self.name,
            valid=f"at most {self._intensity.max_restarts} restarts in {self._intensity.max_seconds:g} s",
        ) from end.exception

    async def _bring_up(self, entry: Entry, kind: str = "started") -> None:
        while True:
            try:
                entry.child = await entry.spec.start()
                break
            except Exception as error:
                end = Exit(exception=error)
            self._tell("died", entry, end.reason)
            await self._sleep(self._charge(entry, end))
        entry.restarting = False
        entry.watcher = asyncio.create_task(self._watch(entry, entry.child))
        self._tell(kind, entry)

    async def _try_again(self, entry: Entry, delay_s: float) -> None:
        await self._sleep(delay_s)
        self._exits.put_nowait((entry, None, None))

    async def _watch(self, entry: Entry, child: Child) -> None:
        self._exits.put_nowait((entry, child, await child.wait()))

    async def _take_down(self, entries: Sequence[Entry], shutdown: Shutdown | None = None) -> None:
        for entry in reversed(entries):
            entry.restarting = False
            if entry.watcher is not None:
                entry.watcher.cancel()
                entry.watcher = None
            if entry.child is not None:
                await entry.child.stop(entry.spec.shutdown if shutdown is None else shutdown)
                entry.child = None
