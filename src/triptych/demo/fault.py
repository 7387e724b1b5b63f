"""The fault: SIGKILL a worker in the middle of the load, and watch what the clients see."""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from triptych.demo.load import Request, Tally, run_load
from triptych.demo.server import Server

ANSWERS_BEFORE_KILL = 200
CALM_AFTER_S = 1.0
LONGEST_S = 40.0


@dataclass(frozen=True)
class Fault:
    """What happened, on the monotonic clock."""

    tally: Tally
    killed_pid: int
    replacement_pid: int | None
    killed_at_s: float
    replaced_at_s: float

    @property
    def seconds_to_restart(self) -> float:
        """From the signal to a new worker that is ready."""
        return self.replaced_at_s - self.killed_at_s


def kill_a_worker_under_load(server: Server, requests: list[Request], *, seed: int) -> Fault:
    """Repeat `requests` through it all: load, a kill at a random moment, the replacement, a calm second."""
    chance, underway, over = random.Random(seed), threading.Event(), threading.Event()
    threshold = ANSWERS_BEFORE_KILL + chance.randrange(ANSWERS_BEFORE_KILL)
    deadline_s = time.monotonic() + LONGEST_S

    def endless() -> Iterator[Request]:
        for request in itertools.cycle(requests):
            if over.is_set() or time.monotonic() > deadline_s:
                return
            yield request

    def watch(count: int) -> None:
        if count >= threshold:
            underway.set()

    tallies: list[Tally] = []

    def load() -> None:
        tallies.append(run_load(server, endless(), on_answer=watch))

    clients = threading.Thread(target=load)
    clients.start()
    try:
        underway.wait(LONGEST_S)
        before = server.worker_pids()
        victim = chance.choice(before)
        os.kill(victim, signal.SIGKILL)
        killed_at_s = time.monotonic()
        replacement = server.wait_for_replacement(before)
        replaced_at_s = time.monotonic()
        over.wait(CALM_AFTER_S)
    finally:
        over.set()
        clients.join()
    return Fault(tallies[0], victim, replacement, killed_at_s, replaced_at_s)
