"""An experiment: a fault, what is expected of it, and how to run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from triptych.errors import TriptychError
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.outcome import Check, Outcome
from triptych.serve.chaos.stage import MACHINES, Stage

MEMORY = frozenset({"memory"})
SQLITE = frozenset({"sqlite"})
AMQP = frozenset({"amqp"})
DURABLE = SQLITE | AMQP
ANYWHERE = MEMORY | {MACHINES}  # what is sent and what harms is the same, whoever computes


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Args:
        run: does it, in a lab.
        brokers: those that `run` applies to.
        on_jobs: does it to the durable lane, on the brokers that keep jobs safe.
        on_machines: does it to a gateway and workers over RabbitMQ, where `run` is not the same there.
        is_long: whether it takes minutes, so that a quick run leaves it out.
    """

    number: int
    fault: str
    expected: str
    run: Callable[[Lab], None]
    brokers: frozenset[str] = MEMORY
    is_long: bool = False
    on_jobs: Callable[[Lab], None] | None = None
    on_machines: Callable[[Lab], None] | None = None

    def applies_to(self, broker: str) -> bool:
        """Whether there is anything to run on this broker."""
        return self.run_on(broker) is not None

    def run_on(self, broker: str) -> Callable[[Lab], None] | None:
        """What to run on this broker; None if it means nothing there."""
        if broker in self.brokers:
            return self.run
        return self.on_jobs if broker in DURABLE else self.on_machines if broker == MACHINES else None

    def perform(self, stage: Stage, seed: int) -> Outcome:
        """Run it once. What the server does not survive, or the experiment does not, is an outcome too."""
        lab, started_s = Lab(stage, seed), time.monotonic()
        run = self.run_on(stage.broker)
        assert run is not None  # `applies_to` says so
        try:
            run(lab)
        except (TriptychError, OSError) as error:
            lab.check("the experiment ran to its end", False, f"{type(error).__name__}: {error}")
        finally:
            lab.close()
        found: dict[str, Check] = lab.invariants()
        answers = [answer for trial in lab.trials for answer in trial.answers]
        return Outcome(
            experiment=self.number,
            fault=self.fault,
            expected=self.expected,
            broker=stage.broker,
            seed=seed,
            requests=len(answers) + sum(len(jobs.accepted) for jobs in lab.loads),
            errors=sum(len(trial.errors) for trial in lab.trials),
            death_seen_s=lab.death_seen_s,
            recovery_s=lab.recovery_s,
            elapsed_s=time.monotonic() - started_s,
            checks=lab.checks,
            figures=lab.figures,
            invariants=found,
        )
