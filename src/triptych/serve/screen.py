"""What `triptych top` shows: two looks at a server, and what happened between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Samples = dict[str, float]  # of one metric, by label or upper bound
WORRYING = "bold red"


class Queue(TypedDict):
    """How many requests wait, of how many that may."""

    depth: int
    capacity: int


class Worker(TypedDict):
    """A worker process; pid is None while there is none."""

    slot: int
    pid: int | None
    state: str
    restarts: int
    in_flight: int
    streams: int


class Health(TypedDict):
    """What is shown of `/healthz`."""

    version: str
    uptime_s: float
    draining: bool
    models: dict[str, str]
    queue: Queue
    workers: list[Worker]


@dataclass(frozen=True)
class Look:
    """A server at one moment: what `/healthz` says, and the counters of `/metrics` it needs."""

    health: Health
    answers: Samples  # by status
    durations: Samples  # by upper bound in seconds
    batches: float
    rows: float
    restarts: Samples  # by cause
    at_s: float

    @classmethod
    def of(cls, health: Health, page: str, at_s: float) -> Look:
        """From the two documents."""
        answers, durations, restarts = (defaultdict[str, float](float) for _ in range(3))
        single: Samples = defaultdict(float)
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "triptych_requests_total":
                    answers[sample.labels["code"]] += sample.value
                elif sample.name == "triptych_request_duration_seconds_bucket":
                    durations[sample.labels["le"]] += sample.value
                elif sample.name == "triptych_worker_restarts_total":
                    restarts[sample.labels["reason"]] += sample.value
                elif not sample.labels:
                    single[sample.name] = sample.value
        batches, rows = single["triptych_batch_rows_count"], single["triptych_batch_rows_sum"]
        return cls(health, answers, durations, batches, rows, restarts, at_s)


def screen(before: Look, now: Look) -> RenderableType:
    """Everything, top to bottom."""
    return Group(heading(now), "", traffic(before, now), "", workers(now))


def heading(now: Look) -> Text:
    """Who answers, since when, and with which models."""
    health = now.health
    text = Text(f"triptych {health['version']}, up {span(health['uptime_s'])}", style="bold")
    if health["draining"]:
        text.append("  draining", style=WORRYING)
    models = "  ".join(f"{name} {version}" for name, version in health["models"].items())
    return text.append(f"\n{models}", style="not bold")


def traffic(before: Look, now: Look) -> Table:
    """What came and went since the last look."""
    elapsed_s = max(1e-9, now.at_s - before.at_s)
    rates = {code: rate for code in sorted(now.answers) if (rate := grown(before, now, "answers", code))}
    batches = now.batches - before.batches
    queue = now.health["queue"]
    table = Table(show_header=False, show_edge=False, box=None, padding=(0, 2, 0, 0))
    answered = Text(f"{sum(rates.values()) / elapsed_s:.0f}/s")
    for code, count in rates.items():
        answered.append(f"   {code}: {count / elapsed_s:.0f}/s", style=WORRYING if code >= "500" else "")
    table.add_row("answered", answered)
    counts = {bound: grown(before, now, "durations", bound) for bound in now.durations}
    table.add_row("in", f"half {quantile(counts, 0.5)}, 99 of 100 {quantile(counts, 0.99)}")
    rows = (now.rows - before.rows) / batches if batches else 0.0
    table.add_row("batches", f"{batches / elapsed_s:.0f}/s of {rows:.1f} rows")
    full = Text(
        f"{queue['depth']} of {queue['capacity']}", WORRYING if queue["depth"] >= queue["capacity"] else ""
    )
    table.add_row("waiting", full)
    restarts = ", ".join(f"{count:.0f} by {reason}" for reason, count in now.restarts.items() if count)
    table.add_row("restarts", restarts or "none")
    return table


def workers(now: Look) -> Table:
    """Every worker process."""
    table = Table("worker", "pid", "state", "restarts", "batches", "texts", show_edge=False)
    for worker in now.health["workers"]:
        state = Text(worker["state"], "green" if worker["state"] == "ready" else WORRYING)
        cells = (worker["restarts"], worker["in_flight"], worker["streams"])
        table.add_row(str(worker["slot"]), str(worker["pid"] or "-"), state, *map(str, cells))
    return table


def grown(before: Look, now: Look, name: str, key: str) -> float:
    """How much a counter has grown; all of it if the server was started anew in between."""
    was, is_now = getattr(before, name).get(key, 0.0), getattr(now, name).get(key, 0.0)
    return float(is_now - was if is_now >= was else is_now)


def quantile(counts: Mapping[str, float], share: float) -> str:
    """The bound below which `share` of the observations lie, from cumulative counts by upper bound.

    >>> quantile({"0.01": 9.0, "0.1": 10.0, "+Inf": 10.0}, 0.5)
    'under 10 ms'
    """
    total = counts.get("+Inf", 0.0)
    if not total:
        return "-"
    bound = next(float(bound) for bound in sorted(counts, key=float) if counts[bound] >= share * total)
    return "over a minute" if bound == float("inf") else f"under {bound * 1000:g} ms"


def span(seconds: float) -> str:
    """A length of time in words.

    >>> span(3725)
    '1 h 2 min'
    """
    minutes = int(seconds // 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
