"""What a session found, as a table for a terminal and as a page of documentation."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from triptych.serve.chaos.outcome import INVARIANTS, Outcome
from triptych.serve.chaos.session import Report

COLUMNS = ("#", "fault", "broker", "seed", "requests", "errors", "death seen", "recovery", *INVARIANTS, "")


def show(report: Report, console: Console) -> None:
    """The table, what did not hold, and what was not run."""
    table = Table(show_edge=False, pad_edge=False)
    for name in COLUMNS:
        left = name in ("fault", "")
        table.add_column(name, no_wrap=name != "fault", justify="left" if left else "right")
    for outcome in report.outcomes:
        verdict = "[green]held[/]" if outcome.ok else "[red]FAILED[/]"
        table.add_row(*map(escape, row(outcome, held="✓", broken="✗")), verdict)
    console.print(table)
    for outcome in report.outcomes:
        for failure in outcome.failures():
            console.print(f"[red]{outcome.experiment}, seed {outcome.seed}:[/] {escape(failure)}")
    for end in report.ends:
        if not end.held:
            console.print(f"[red]{escape(end.name)}:[/] {escape(end.detail)}")
    for line in not_run(report):
        console.print(line, style="dim")


def row(outcome: Outcome, *, held: str, broken: str) -> list[str]:
    """The cells of one outcome; an invariant that has nothing to say is a dot."""
    found = outcome.invariants
    marks = [(held if found[name].held else broken) if name in found else "·" for name in INVARIANTS]
    return [
        str(outcome.experiment),
        outcome.fault,
        outcome.broker,
        str(outcome.seed),
        f"{outcome.requests:,}",
        f"{outcome.errors:,}",
        "" if outcome.death_seen_s is None else f"{outcome.death_seen_s * 1000:.0f} ms",
        "" if outcome.recovery_s is None else f"{outcome.recovery_s:.2f} s",
        *marks,
    ]


def not_run(report: Report) -> list[str]:
    """What the table does not hold, and why, in sentences."""
    lines = [
        f"does not apply to {broker}: {', '.join(numbers)}"
        for broker in report.plan.brokers
        if (numbers := [str(number) for number, other in report.not_applicable if other == broker])
    ]
    if report.left_out:
        lines.append("left out because they take minutes: " + ", ".join(map(str, report.left_out)))
    if report.not_built:
        lines.append("not built: " + ", ".join(map(str, report.not_built)))
    return lines


def markdown(report: Report) -> str:
    """The table of `docs/reliability.md`: outcomes, then every figure beside what was asked."""
    head = f"| {' | '.join(COLUMNS[:-1])} | held |"
    lines = [head, "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    for outcome in report.outcomes:
        cells = row(outcome, held="yes", broken="**no**")
        lines.append(f"| {' | '.join([*cells, 'yes' if outcome.ok else '**no**'])} |")
    lines += ["", "| # | seed | figure | measured | asked |", "| --- | --- | --- | --- | --- |"]
    for outcome in report.outcomes:
        for f in outcome.figures:
            measured, asked = f"{f.value:.4g} {f.unit}", f"{f.sense} {f.asked:.4g} {f.unit}"
            lines.append(f"| {outcome.experiment} | {outcome.seed} | {f.name} | {measured} | {asked} |")
    failures = [
        f"- {outcome.experiment}, seed {outcome.seed}: {failure}"
        for outcome in report.outcomes
        for failure in outcome.failures()
    ]
    lines += ["", "What did not hold:", "", *failures] if failures else ["", "Everything held."]
    lines += ["", *(f"- {line}" for line in not_run(report))]
    plan = report.plan
    kind = "quick" if plan.quick else "long"
    lines += [
        "",
        f"Triptych {report.version}, {report.started_at[:10]}, {report.machine}; {kind} run, "
        f"{plan.seeds} seed(s), patience {plan.patience:g}.",
    ]
    return "\n".join(lines) + "\n"
