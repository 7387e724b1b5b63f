"""Every experiment once, on each broker it applies to."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from triptych.errors import ConfigError
from triptych.serve.chaos import process
from triptych.serve.chaos.experiments import EXPERIMENTS
from triptych.serve.chaos.outcome import Figure
from triptych.serve.chaos.page import BEGIN, END, catalogue, replace
from triptych.serve.chaos.program import wait_until
from triptych.serve.chaos.session import BROKERS, Plan, Report
from triptych.serve.chaos.stage import Stage
from triptych.serve.chaos.table import markdown

RUNS = sorted(
    (broker, number) for number, e in EXPERIMENTS.items() for broker in BROKERS if e.applies_to(broker)
)
SLOW = {9}  # RabbitMQ takes half a minute to be back; tests/faults has it for the broker alone


def marks(number: int) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if number in SLOW or EXPERIMENTS[number].is_long else []


@pytest.mark.parametrize(("broker", "number"), [pytest.param(*run, marks=marks(run[1])) for run in RUNS])
def test_nothing_is_lost(stage_of: Callable[[str], Stage], broker: str, number: int) -> None:
    outcome = EXPERIMENTS[number].perform(stage_of(broker), seed=0)
    assert outcome.failures() == []
    assert outcome.checks or outcome.invariants


def test_a_session_that_is_told_to_end_while_it_starts_leaves_no_server_behind(
    stage_of: Callable[[str], Stage],
) -> None:
    bundles = [word for bundle in stage_of("memory").bundles for word in ("--bundle", str(bundle))]
    session = subprocess.Popen([sys.executable, "-m", "triptych", "chaos", "--experiment", "5", *bundles])
    below = wait_until(lambda: process.children(session.pid), timeout_s=60.0) or []
    session.terminate()
    assert session.wait(60) == 128 + signal.SIGTERM
    assert below
    assert process.wait_gone(below, 1.0) == []


def test_an_unknown_experiment_or_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="--experiment"):
        Plan(experiments=(99,)).check()
    with pytest.raises(ConfigError, match="--broker"):
        Plan(brokers=("kafka",)).check()
    with pytest.raises(ConfigError, match="above 0"):
        Plan(seeds=0).check()


def test_a_report_becomes_a_page_with_every_figure_and_what_was_not_run(
    stage_of: Callable[[str], Stage],
) -> None:
    outcome = EXPERIMENTS[6].perform(stage_of("memory"), seed=0)
    figure = Figure("death seen", 0.2, "s", 0.05, "at most", 0.05)
    failed = msgspec.structs.replace(outcome, figures=[figure])
    report = Report(
        version="1",
        machine="here",
        started_at="2026-01-01T00:00:00",
        plan=Plan(),
        outcomes=[outcome, failed],
        ends=[],
        not_applicable=[(9, "memory")],
        not_built=[13],
        left_out=[],
    )
    assert (outcome.ok, failed.ok, report.ok) == (True, False, False)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
    page = replace(f"before {BEGIN} old {END} after", markdown(report))
    for said in ("before", "after", "| death seen | 0.2 s | at most 0.05 s |", "not built: 13", "**no**"):
        assert said in page
    assert " old " not in page
    assert "does not apply to memory: 9" in page


def test_the_published_table_has_every_experiment() -> None:
    page = (Path(__file__).parents[3] / "docs" / "reliability.md").read_text()
    assert catalogue() in page
