"""Runs beside each other: where each got to, the settings in which they differ, their curves overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.errors import ConfigError
from triptych.learn.train.curves import Lines, axis, flat
from triptych.learn.train.metrics import Row
from triptych.learn.train.run import read_history, read_json
from triptych.pages import BLUE, GREEN, GREY, ORANGE, RED, Figure, render, write_page

COLOURS = (BLUE, ORANGE, GREEN, RED, "#8a5cd1", "#0f9aa8", "#b5872a", GREY)
COLUMNS = ("run", "metric", "first", "best", "at step", "last", "steps", "seconds", "examples/s")
_DASH = {"train": "dot", "validation": "solid"}


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    name: str
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[Row]

    def cells(self) -> tuple[str, ...]:
        """Its row of the table, in the order of `COLUMNS`."""
        s, metric = self.summary, self.summary["validation_metric"]
        first, best, last = (s[f"{when}_validation"].get(metric) for when in ("first", "best", "last"))
        return (
            self.name,
            metric,
            *(_number(value) for value in (first, best)),
            str(s["best_validation"]["step"]),
            _number(last),
            str(s["steps"]),
            f"{s['seconds']:.1f}",
            f"{s['examples_per_second']:.0f}",
        )


def read_runs(paths: Sequence[str | Path]) -> list[Entry]:
    """The runs at `paths`, finished or still training.

    Raises:
        ConfigError: fewer than two different runs, or one is none.
    """
    folders = list(dict.fromkeys(Path(path) for path in paths))
    if len(folders) < 2:
        raise ConfigError(f"got {len(folders)} run", where="compare", valid="two or more run folders")
    short = len({folder.name for folder in folders}) == len(folders)
    return [
        Entry(
            folder.name if short else str(folder),
            read_json(folder / "config.json"),
            read_json(folder / "run.json"),
            read_history(folder),
        )
        for folder in folders
    ]


def differences(runs: Sequence[Entry]) -> dict[str, list[str]]:
    """The settings in which the runs differ: a value for each run, "-" where it has or was given none."""
    flats = [dict(_flatten(run.config)) for run in runs]
    keys = sorted({key for settings in flats for key in settings})
    table = {key: [_setting(settings.get(key)) for settings in flats] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def overlay(runs: Sequence[Entry]) -> list[Figure]:
    """A figure for each logged quantity: a colour for each run, training dotted, validation solid."""
    series: dict[str, dict[tuple[int, str], tuple[list[int], list[float]]]] = {}
    for index, run in enumerate(runs):
        for row in run.history:
            for name, value in flat(row).items():
                steps, values = series.setdefault(name, {}).setdefault((index, row["split"]), ([], []))
                steps.append(row["step"])
                values.append(value)
    return [
        Figure(
            f"figure-{place}",
            name.replace("_", " "),
            [
                {
                    "x": x,
                    "y": y,
                    "name": f"{runs[index].name} {split}",
                    "mode": "lines",
                    "line": {"color": COLOURS[index % len(COLOURS)], "dash": _DASH[split], "width": 1.5},
                }
                for (index, split), (x, y) in lines.items()
            ],
            {
                "xaxis": {"title": {"text": "step"}},
                "yaxis": axis(name, _named(lines)),
                "legend": {"orientation": "h", "y": -0.25, "font": {"size": 10}},
            },
        )
        for place, (name, lines) in enumerate(series.items())
    ]


def write_comparison(runs: Sequence[Entry], path: Path) -> None:
    """One self-contained page: the table, the differing settings, the curves."""
    figures = overlay(runs)
    page = render(
        "compare.html",
        script="inline",
        figures=figures,
        columns=COLUMNS,
        rows=[run.cells() for run in runs],
        names=[run.name for run in runs],
        differences=differences(runs),
        curves=[figure.id for figure in figures],
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(path, page)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _named(lines: dict[tuple[int, str], tuple[list[int], list[float]]]) -> Lines:
    return {f"{index} {split}": line for (index, split), line in lines.items()}


def _flatten(value: Any, where: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and plain values; what the data turned out to be and what was shown are left out."""
    if not isinstance(value, dict):
        return [(where, value)]
    kept = {k: v for k, v in value.items() if where or k not in ("log", "data_spec", "format_version")}
    return [pair for k, v in kept.items() for pair in _flatten(v, f"{where}.{k}".lstrip("."))]


def _setting(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4f}"
