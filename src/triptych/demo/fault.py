"""The fault: SIGKILL a worker in the middle of the load, and watch what the clients see."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from dataclasses import dataclass

from triptych.serve.chaos.load import Load, Request, Tally
from triptych.serve.chaos.server import Server

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
    chance = random.Random(seed)
    with Load(server, itertools.cycle(requests)) as load:
        load.wait_for(ANSWERS_BEFORE_KILL + chance.randrange(ANSWERS_BEFORE_KILL), timeout_s=LONGEST_S)
        before = server.worker_pids()
        victim = chance.choice(before)
        os.kill(victim, signal.SIGKILL)
        killed_at_s = time.monotonic()
        replacement = server.wait_for_replacement(before)
        replaced_at_s = time.monotonic()
        load.run_for(CALM_AFTER_S)
    return Fault(load.tally, victim, replacement, killed_at_s, replaced_at_s)
