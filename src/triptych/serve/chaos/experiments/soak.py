"""27: random faults for minutes."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import nullcontext

from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments.disconnects import leave
from triptych.serve.chaos.experiments.hostile_clients import answered, bodies
from triptych.serve.chaos.experiments.swapped import load_anew
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.jobs import JobLoad
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.machines import Machines
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.trial import Trial

CONNECTIONS, PAUSE_S, JOB_PAUSE_S = 8, 0.03, 0.2
HANG_TIMEOUT = "workers.hang_timeout_s=1.0"
SOAK_S, FAULT_EVERY_S = 300.0, 1.5
SLOPE_BYTES_PER_MINUTE = 2**20


def run(lab: Lab) -> None:
    """Random faults one after the other; no client notices, and memory does not grow."""
    soak(lab, lab.serve(HANG_TIMEOUT))


def on_jobs(lab: Lab) -> None:
    """The same while workers do jobs, too: each is done in the end."""
    server = lab.serve_jobs(lab.stage.store(), HANG_TIMEOUT)
    jobs = lab.jobs(server, pause_s=JOB_PAUSE_S)
    soak(lab, server, beside=jobs)
    lab.all_done(jobs)


def on_machines(lab: Lab) -> None:
    """The same on a gateway and workers over RabbitMQ: whole workers are killed, too."""
    soak(lab, lab.machines(HANG_TIMEOUT))


def soak(lab: Lab, server: Server, beside: JobLoad | None = None) -> None:
    """Faults and load on `server` for as long as it takes, with jobs `beside` them."""
    done: Counter[str] = Counter()
    with lab.trial(server, connections=CONNECTIONS, pause_s=PAUSE_S, strangers=True) as trial:
        trial.watch.expect(None)  # both workers may be gone for a moment
        storm, until_s = Storm(lab, server, trial), time.monotonic() + SOAK_S
        with beside or nullcontext():
            while time.monotonic() < until_s:
                done[storm.strike()] += 1
                trial.load.run_for(FAULT_EVERY_S)
        lab.all_back(server)
        trial.watch.expect(True)
        trial.load.run_for(5.0)
    lab.check("every fault was done", len(done) == len(storm.faults), dict(done))
    lab.no_errors(trial)
    lab.at_most("memory slope", trial.watch.slope() * 60 / 2**20, "MiB/min", SLOPE_BYTES_PER_MINUTE / 2**20)


class Storm:
    """The faults, each a method without arguments."""

    def __init__(self, lab: Lab, server: Server, trial: Trial) -> None:
        self._lab, self._server, self._trial = lab, server, trial
        self.faults = [
            self.kill,
            self.stop,
            self.poison,
            self.raising,
            self.hang_up,
            self.hostile,
            self.restart,
        ]

    def strike(self) -> str:
        """Do a random one; returns its name."""
        fault = self._lab.chance.choice(self.faults)
        fault()
        return fault.__name__

    def kill(self, number: int = signal.SIGKILL) -> None:
        """SIGKILL a worker."""
        if pids := self._server.worker_pids():
            self._lab.strike(self._server, self._lab.chance.choice(pids), number)

    def stop(self) -> None:
        """SIGSTOP a worker."""
        self.kill(signal.SIGSTOP)

    def poison(self) -> None:
        """An input that ends its worker."""
        self._trial.ask(self._lab.harmful(Fault.ABORT))

    def raising(self) -> None:
        """An input on which the model raises."""
        self._trial.ask(self._lab.harmful(Fault.RAISE))

    def hang_up(self) -> None:
        """Clients that leave."""
        leave(self._server, self._lab.chance.choice(self._lab.stage.slow), 20)

    def hostile(self) -> None:
        """A client that means harm."""
        answered(self._server, self._lab.chance.choice(bodies(self._lab))[2])

    def restart(self) -> None:
        """A rolling restart; of machines: one is killed when another has come."""
        if not isinstance(self._server, Machines):
            load_anew(self._server, self._lab.stage.image)
            return
        self._server.add().until_up()
        self._server.lose(next(machine for machine in self._server.machines if machine.is_running()))


EXPERIMENT = Experiment(
    27,
    "a soak: five minutes of load with random faults of the above",
    "every promise holds; memory does not grow",
    run,
    on_jobs=on_jobs,
    on_machines=on_machines,
    is_long=True,
)
