"""A running program of Triptych, seen from outside: what it says, what it logs, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from triptych.errors import ServeError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
EVENT_TIMEOUT_S = 30.0
LOOK_EVERY_S = 0.01

Event = dict[str, Any]
T = TypeVar("T")


class Journal:
    """What one program has logged in JSON, or several that belong together.

    Attributes:
        events: each with `at_s`, the wall-clock second it was written.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.heard = threading.Condition()

    def take(self, line: str) -> None:
        """Note one line of JSON."""
        event = json.loads(line)
        event["at_s"] = datetime.fromisoformat(event["time"]).timestamp()
        with self.heard:
            self.events.append(event)
            self.heard.notify_all()

    def wait_for(self, kind: str, past: int, timeout_s: float, fields: Mapping[str, object]) -> Event | None:
        """The first event of `kind` with these fields but for the first `past`; None if there is none by the
        deadline.
        """
        wanted = {"event_kind": kind, **fields}

        def found() -> Event | None:
            return next(
                (e for e in self.events[past:] if all(e.get(k) == v for k, v in wanted.items())), None
            )

        with self.heard:
            self.heard.wait_for(lambda: found() is not None, timeout_s)
            return found()


@contextmanager
def held(number: signal.Signals) -> Iterator[list[int]]:
    """A signal that comes meanwhile is noted, and not acted on. Only a main thread is interrupted by any."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(number, before)


class Program:
    """Starts on entry and is sent SIGTERM on exit; `exit_code` is 0 only if accepted work was answered.

    Args:
        command: the words after `triptych`.
        until: what it says on a line of its own once it is up.
        log: file that gets every line it writes.
        environment: variables set on top of this process's own.
        journal: gets what it logs with `--log json`.

    Attributes:
        said: what of that line matched `until`.
        seconds_to_ready: from its start to that line.
        exit_code: once it has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        until: re.Pattern[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.command, self.log = list(command), log
        self.exit_code: int | None = None
        self.said = ""
        self.seconds_to_ready = 0.0
        self.journal = journal or Journal()
        self._until, self._environment = until, environment or {}
        self._spoke = threading.Condition()
        self._is_silent = False

    def __enter__(self) -> Self:
        try:
            self.start()
            self.until_up()
        except BaseException:  # also when this process is asked to end
            if hasattr(self, "_process"):
                self.kill()
            raise
        return self

    def start(self) -> None:
        """Start it; `until_up` waits for it."""
        self._started_s = time.monotonic()
        with held(signal.SIGTERM) as came:  # else it would be there, and nobody would know of it
            self._process = subprocess.Popen(
                [sys.executable, "-m", "triptych", *self.command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self._environment},
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        if came:
            self.kill()
            signal.raise_signal(signal.SIGTERM)

    def until_up(self) -> None:
        """Return once it has said that it is up.

        Raises: ServeError if it does not.
        """
        with self._spoke:
            self._spoke.wait_for(lambda: bool(self.said) or self._is_silent, START_TIMEOUT_S)
        if not self.said:
            raise ServeError(
                "did not get ready", where=f"triptych {self.command[0]}", remedy=f"see {self.log}"
            )
        self.seconds_to_ready = time.monotonic() - self._started_s

    @property
    def pid(self) -> int:
        """Process id of the root."""
        return self._process.pid

    @property
    def events(self) -> list[Event]:
        """What it has logged in JSON."""
        return self.journal.events

    def _read(self) -> None:
        """Copy what it says into the log."""
        assert self._process.stdout is not None
        with self._process.stdout as output, self.log.open("w") as log:
            for line in output:
                log.write(line)
                log.flush()
                if line.startswith("{"):
                    self.journal.take(line)
                elif not self.said and (match := self._until.search(line)):
                    with self._spoke:
                        self.said = match.group()
                        self._spoke.notify_all()
        with self._spoke:
            self._is_silent = True
            self._spoke.notify_all()

    def wait_for_event(
        self, kind: str, *, past: int = 0, timeout_s: float = EVENT_TIMEOUT_S, **fields: object
    ) -> Event | None:
        """The first logged event of `kind` with these fields; None if there is none by the deadline.

        Args:
            past: how many of `events` to skip, usually `len(server.events)` of a moment before.
        """
        return self.journal.wait_for(kind, past, timeout_s, fields)

    def is_running(self) -> bool:
        """Whether its root has not ended."""
        return self._process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the root."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """The exit code; None if it still runs by the deadline."""
        try:
            self.exit_code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5)
        return self.exit_code

    def kill(self) -> None:
        """End the root at once; what is below it ends with it."""
        self._process.kill()
        self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.exit_code is None:
            self.send_signal(signal.SIGTERM)
            if self.wait() is None:
                self.kill()


def wait_until(look: Callable[[], T | None], *, timeout_s: float) -> T | None:
    """Look from outside, again and again, until there is something to see; None if there is not in time."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := look():
            return found
        time.sleep(LOOK_EVERY_S)
    return None
