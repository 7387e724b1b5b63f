"""A session: which experiments are run, on which broker, with which seeds; and all they found."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from triptych import __version__
from triptych.errors import ConfigError
from triptych.serve.chaos.experiments import EXPERIMENTS
from triptych.serve.chaos.outcome import INVARIANTS, Check, Outcome
from triptych.serve.chaos.stage import Stage

NUMBERS = range(1, 28)
BROKERS = ("memory", "sqlite", "amqp", "machines")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Args:
        experiments: their numbers; empty is all.
        brokers: where work queues, one after the other.
        seeds: each experiment is run with the seeds 0 to `seeds` - 1.
        quick: each thing once, in seconds; without it in minutes.
        patience: factor on every bound in seconds.
    """

    experiments: tuple[int, ...] = ()
    brokers: tuple[str, ...] = ("memory",)
    seeds: int = 1
    quick: bool = False
    patience: float = 1.0

    def check(self) -> None:
        """Raise ConfigError for an experiment or a broker there is not."""
        for number in self.experiments:
            if number not in EXPERIMENTS:
                valid = ", ".join(map(str, EXPERIMENTS))
                raise ConfigError(f"got {number}", where="--experiment", valid=valid)
        for broker in self.brokers:
            if broker.partition(":")[0] not in BROKERS:
                raise ConfigError(f"got `{broker}`", where="--broker", valid=", ".join(BROKERS))
        if self.seeds < 1 or self.patience <= 0:
            raise ConfigError(
                f"got {self.seeds} and {self.patience}", where="--seeds, --patience", valid="numbers above 0"
            )


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a session found.

    Args:
        ends: how the servers ended that experiments shared, one per broker.
        not_applicable: experiments that mean nothing on a broker: number and broker.
        not_built: numbers of the catalogue that no experiment stands behind.
        left_out: asked for or not, these take minutes and the session was quick.
    """

    version: str
    machine: str
    started_at: str
    plan: Plan
    outcomes: list[Outcome]
    ends: list[Check]
    not_applicable: list[tuple[int, str]]
    not_built: list[int]
    left_out: list[int]
    invariants: dict[str, str] = msgspec.field(default_factory=lambda: dict(INVARIANTS))

    @property
    def ok(self) -> bool:
        """Whether everything that was run held."""
        return all(outcome.ok for outcome in self.outcomes) and all(end.held for end in self.ends)


def run(plan: Plan, bundles: Sequence[Path], tell: Callable[[Outcome], None]) -> Report:
    """Run the experiments of `plan` on `bundles`.

    Args:
        tell: called with each outcome as it comes.

    Raises: ConfigError for an unknown experiment or broker, or bundles that do not do.
    """
    plan.check()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    chosen = [EXPERIMENTS[number] for number in sorted(plan.experiments or EXPERIMENTS)]
    fitting = [e for e in chosen if not (plan.quick and e.is_long)]
    outcomes, ends, not_applicable = [], [], []
    for broker in plan.brokers:
        scheme = broker.partition(":")[0]
        not_applicable += [(e.number, broker) for e in chosen if not e.applies_to(scheme)]
        here = [e for e in fitting if e.applies_to(scheme)]
        with tempfile.TemporaryDirectory(prefix="triptych-chaos-") as folder:
            stage = Stage(bundles, Path(folder), quick=plan.quick, patience=plan.patience, broker=broker)
            with stage:
                for experiment in here:
                    for seed in range(plan.seeds):
                        outcomes.append(experiment.perform(stage, seed))
                        tell(outcomes[-1])
            code = stage.shared_exit_code
            ends.append(Check(f"{broker}: the shared server ends with 0", code == 0, f"exit code {code}"))
    return Report(
        version=__version__,
        machine=machine(),
        started_at=started_at,
        plan=plan,
        outcomes=outcomes,
        ends=ends,
        not_applicable=not_applicable,
        not_built=not_built(NUMBERS),
        left_out=[e.number for e in chosen if e not in fitting],
    )


def not_built(numbers: Iterable[int]) -> list[int]:
    """Those that no experiment stands behind."""
    return [number for number in numbers if number not in EXPERIMENTS]


def machine() -> str:
    """The machine, in a few words."""
    cores, python = len(os.sched_getaffinity(0)), platform.python_version()
    return f"{cores} cores, {platform.machine()}, Linux {platform.release()}, Python {python}"
