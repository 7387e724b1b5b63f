"""The lab: what an experiment works with, and what becomes of what it saw."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple, TypeVar

from triptych.serve.chaos import invariants
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.jobs import JobLoad
from triptych.serve.chaos.load import Answer, Request, ask, sample
from triptych.serve.chaos.machines import Machines
from triptych.serve.chaos.outcome import Check, Figure
from triptych.serve.chaos.program import EVENT_TIMEOUT_S, wait_until
from triptych.serve.chaos.rabbit import RabbitServer, url_of
from triptych.serve.chaos.relay import Relay
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.stage import MEMORY, SHARED, TIMEOUT_S, Stage
from triptych.serve.chaos.trial import Trial

T = TypeVar("T")
DEATH_SEEN_S, CAPACITY_BACK_S = 0.05, 2.0
LOGGED_S = 2.0  # by then a line has come through the server's log
DONE_S = 30.0  # by then every job has ended
COMPARED = 20  # results of jobs with the direct route


class Blow(NamedTuple):
    """A signal to a process: whom, when (wall clock), and how much the server had logged before."""

    pid: int
    at_s: float
    past: int


class End(NamedTuple):
    """How a server ended: whether that was asked for in good order, and its exit code."""

    planned: bool
    code: int | None


class Lab:
    """One run of one experiment.

    Attributes:
        stage: bundles, requests, the server that experiments share.
        seed: what `chance` draws from.
        quick: whether once is enough.
        chance: random moments and victims are drawn from it.
        trials, loads, checks, figures: what it saw so far; `loads` are those of jobs.
        death_seen_s, recovery_s: the longest so far; None before the first.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.seed, self.quick = stage, seed, stage.quick
        self.chance = random.Random(seed)
        self.trials: list[Trial] = []
        self.loads: list[JobLoad] = []
        self.checks: list[Check] = []
        self.figures: list[Figure] = []
        self.death_seen_s: float | None = None
        self.recovery_s: float | None = None
        self._servers: list[Server] = []
        self._ends: list[End] = []
        self._open = ExitStack()

    def shared(self) -> Server:
        """The server for experiments that leave it as they found it; it goes on afterwards."""
        return self.stage.shared()

    def serve(
        self,
        *settings: str,
        sabotage: str = "",
        bundles: Sequence[Path] | None = None,
        jobs: str = MEMORY,
    ) -> Server:
        """A server of this experiment's own; at the end it is stopped with SIGTERM unless it has ended."""
        made = self.stage.server(*settings, sabotage=sabotage, bundles=bundles, jobs=jobs)
        self._servers.append(self._open.enter_context(made))
        return made

    def machines(self, *settings: str, relay: Relay | None = None) -> Machines:
        """A gateway and workers of this experiment's own; at the end they are stopped as a server is.

        Args:
            relay: all their connections to RabbitMQ go through it.
        """
        made = self.stage.machines(*settings, port=relay.port if relay else None)
        self._servers.append(self._open.enter_context(made))
        return made

    def relay(self, *targets: int) -> Relay:
        """A relay to the first of these ports that takes connections; it ends behind the servers."""
        made = Relay(targets)
        self._open.callback(made.close)
        return made

    def rabbit(self, beside: RabbitServer | None = None) -> RabbitServer:
        """A RabbitMQ of this experiment's own, or one more node of the cluster of `beside`."""
        made = RabbitServer(Path(tempfile.mkdtemp(dir=self.stage.folder)), beside)
        self._open.callback(made.close)
        return made

    def serve_behind(self, relay: Relay, *settings: str) -> Server:
        """A server of this experiment's own that shares jobs through the RabbitMQ behind `relay`."""
        return self.serve(*settings, f"jobs.broker={url_of(relay.port)}", jobs=self.stage.store())

    def serve_jobs(self, store: str, *settings: str, bundles: Sequence[Path] | None = None) -> Server:
        """A server of this experiment's own that keeps jobs in `store`, and shares them if the stage's broker
        is RabbitMQ.
        """
        shared = [f"jobs.broker={self.stage.rabbit().url}"] if self.stage.broker == "amqp" else []
        return self.serve(*shared, *settings, bundles=bundles, jobs=store)

    def durable(self) -> Server:
        """A server whose jobs are safe, for experiments that leave it as they found it."""
        return self.shared() if self.stage.broker == "amqp" else self.serve_jobs(self.stage.store(), *SHARED)

    def ask_once(self, server: Server, request: Request) -> Answer:
        """The answer to one request, outside of any trial."""
        with closing(server.connect((request.timeout_s or TIMEOUT_S) + TIMEOUT_S)) as connection:
            return ask(connection, request)

    def run_serve(self, *words: str | Path, sabotage: str = "") -> tuple[int, str]:
        """`triptych serve` that is not to start: its exit code, and all it wrote."""
        ended = subprocess.run(
            [sys.executable, "-m", "triptych", "serve", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=EVENT_TIMEOUT_S * self.stage.patience,
            env={**os.environ, **self.stage.environment(sabotage)},
            check=False,
        )
        self._ends.append(End(False, ended.returncode))
        return ended.returncode, ended.stdout

    def trial(
        self, server: Server, requests: Sequence[Request] | None = None, **options: bool | int | float
    ) -> Trial:
        """Load on `server`, watched, to be entered; see `Trial` for the options."""
        if requests is None:
            requests = [*self.stage.requests, *self.stage.slow]
            self.chance.shuffle(requests)
        self.trials.append(Trial(server, requests, **options))  # type: ignore[arg-type]
        return self.trials[-1]

    def jobs(self, server: Server, *, pause_s: float = 0.0) -> JobLoad:
        """Clients that hand in jobs, to be entered; call `all_done` afterwards."""
        prefix = f"{self.seed}-{self.chance.getrandbits(32)}"
        self.loads.append(JobLoad(server, self.stage.image, prefix, pause_s=pause_s))
        return self.loads[-1]

    def harmful(self, seed: int, *, timeout_s: float = TIMEOUT_S) -> Request:
        """A request with a seed of `faults`."""
        return sample(seed, self.stage.image, timeout_s=timeout_s)

    def times(self, once: int, long: int) -> int:
        """How often: `once` when quick."""
        return once if self.quick else long

    def strike(self, server: Server, pid: int, number: int = signal.SIGKILL) -> Blow:
        """Send a signal to one of its processes."""
        past = len(server.events)
        at_s = time.time()
        os.kill(pid, number)
        return Blow(pid, at_s, past)

    def replaces(self, server: Server, number: int = signal.SIGKILL, *, after_s: float = 0.0) -> None:
        """Send a signal to a random worker, and check that another takes its place; see `recovers`."""
        pids = self.wait_until(server.worker_pids)  # a gateway hears of new ones within a second
        if not pids:
            self.check("there is a worker to strike", False, server.workers())
            return
        blow = self.strike(server, self.chance.choice(pids), number)
        self.check(f"pid {blow.pid} is replaced", self.recovers(server, blow, after_s=after_s))

    def recovers(self, server: Server, blow: Blow, *, after_s: float = 0.0) -> bool:
        """Wait until the server has seen the death and has another worker ready in its place.

        Args:
            after_s: how much later than the blow the server could know; it does not count.
        """
        died = server.wait_for_event("died", past=blow.past, pid=blow.pid)
        if died is None:
            return False
        ready = server.wait_for_event("ready", past=server.events.index(died), child=died["child"])
        if not after_s:
            self.death_seen_s = max(self.death_seen_s or 0.0, died["at_s"] - blow.at_s)
        if ready is not None:
            self.recovery_s = max(self.recovery_s or 0.0, ready["at_s"] - blow.at_s - after_s)
        return ready is not None

    def check(self, name: str, held: object, detail: object = "") -> None:
        """Note a claim, whether it held, and the evidence."""
        self.checks.append(Check(name, bool(held), str(detail)))

    def deaths(self, server: Server, past: int, count: int, kind: str = "died") -> list[str]:
        """The reasons of the deaths the server has logged since; waits until there are `count`."""

        def logged() -> list[str]:
            found = [event for event in server.events[past:] if event.get("event_kind") == kind]
            return [str(event["reason"]) for event in found]

        self.wait_until(lambda: len(logged()) >= count)
        return logged()

    def logged(self, server: Server, said: str, past: int, *, timeout_s: float = LOGGED_S) -> list[str]:
        """The messages with `said` that the server has logged since; waits until there is one."""

        def found() -> list[str]:
            return [event["message"] for event in server.events[past:] if said in event["message"]]

        return self.wait_until(found, timeout_s=timeout_s) or []

    def all_back(self, server: Server, count: int = 2) -> None:
        """Wait until `count` workers are ready."""
        back = self.wait_until(lambda: len(server.worker_pids()) == count, timeout_s=5.0)
        if not back:
            self.check(f"{count} workers are ready again", False, server.workers())

    def no_errors(self, trial: Trial) -> None:
        """No client of the load saw anything but 200."""
        errors = trial.errors
        count = len(trial.load.tally.answers)
        self.check(
            "no client saw an error",
            not errors and count > 0,
            f"{count} requests, {len(errors)} errors{invariants.first(errors)}",
        )

    def take_over(self, jobs: JobLoad, store: str) -> None:
        """Have another server take over `store`; the clients of `jobs` go on with it."""
        jobs.server = self.serve_jobs(store)
        jobs.wait_for(20)

    def hand_in(self, jobs: JobLoad, fault: Fault) -> None:
        """A job that does harm, in the crowd of others."""
        jobs.wait_for(self.chance.randrange(10, 40))
        self.check(f"the job that does harm ({fault.name}) is accepted", jobs.submit(fault) == 202)
        jobs.wait_for(40)

    def ends(self, jobs: JobLoad, fault: Fault, *statuses: str) -> None:
        """All others are done, and the job that does harm has ended with one of `statuses`."""
        self.all_done(jobs, but={fault})
        end = jobs.ended.get(fault, {})
        self.check(f"the job that does harm is {' or '.join(statuses)}", end.get("status") in statuses, end)

    def all_done(self, jobs: JobLoad, *, but: Collection[int] = ()) -> None:
        """Every accepted job is done in the end, `but` those of these seeds."""
        jobs.finish(DONE_S * self.stage.patience)
        ends = {seed: said["status"] for seed, said in jobs.ended.items() if seed not in but}
        undone = {seed: status for seed, status in ends.items() if status != "done"}
        told = f"{len(jobs.ended)} of {len(jobs.accepted)} ended, not done: {undone}"
        self.check("every accepted job is done", not undone and len(jobs.ended) == len(jobs.accepted), told)

    def at_most(self, name: str, value: float, unit: str, asked: float) -> None:
        """Note a figure that must not be larger than `asked`."""
        self.figures.append(Figure(name, value, unit, asked, "at most", asked * self.stage.patience))

    def at_least(self, name: str, value: float, unit: str, asked: float) -> None:
        """Note a figure that must not be smaller than `asked`."""
        self.figures.append(Figure(name, value, unit, asked, "at least", asked / self.stage.patience))

    def deaths_in_time(self, back_s: float = CAPACITY_BACK_S) -> None:
        """Note how long deaths went unseen, and how long capacity was missing (at most `back_s`)."""
        if self.death_seen_s is not None:
            self.at_most("death seen", self.death_seen_s, "s", DEATH_SEEN_S)
        if self.recovery_s is not None:
            self.at_most("capacity back", self.recovery_s, "s", back_s)

    def ended(self, server: Server, *, planned: bool) -> int | None:
        """Wait for the end of a server and note whether it was asked for in good order; its exit code."""
        code = server.wait()
        self._ends.append(End(planned, code))
        return code

    def wait_until(self, look: Callable[[], T | None], *, timeout_s: float = LOGGED_S) -> T | None:
        """Look again and again; None if there is nothing to see in time."""
        return wait_until(look, timeout_s=timeout_s * self.stage.patience)

    def close(self) -> None:
        """Stop the servers of this experiment that still run."""
        running = [server for server in self._servers if server.exit_code is None]
        self._open.close()
        self._ends += [End(True, server.exit_code) for server in running]

    def invariants(self) -> dict[str, Check]:
        """What became of the seven, by name; call `close` first."""
        found = invariants.check(self.trials, self.stage.reference, self.stage.patience)
        for load in self.loads:
            reference = load.direct(self.stage.shared(), COMPARED)
            found = invariants.both(found, load.invariants(reference))
        if self._ends:
            found["I7"] = exit_codes(self._ends)
        return found


def exit_codes(ends: Sequence[End]) -> Check:
    """0 after a planned end, anything else after an unplanned one."""
    wrong = [end for end in ends if end.code is None or (end.code == 0) != end.planned]
    told = ", ".join(f"{'planned' if end.planned else 'unplanned'}: {end.code}" for end in ends)
    return Check("exit codes tell the truth", not wrong, told)
