"""Curves of a run: one figure per logged quantity, from `metrics.jsonl`."""

from __future__ import annotations

from math import nan
from typing import Any

from triptych.learn.train.metrics import Row
from triptych.pages import BLUE, ORANGE, Figure

_PLACE = ("step", "epoch", "split", "elapsed_s")
_LOOKS: dict[str, dict[str, Any]] = {
    "train": {"line": {"color": BLUE, "width": 1.5}},
    "validation": {"line": {"color": ORANGE}},
}
_FEW = 30  # points that are few enough to be drawn as points

Lines = dict[str, tuple[list[int], list[float]]]  # split to steps and values


def flat(row: Row) -> dict[str, float]:
    """The numbers of a row, without its place; what is given per turn becomes `name turn`.

    >>> flat({"step": 1, "epoch": 0, "split": "train", "lr": {"critic": 0.1}, "elapsed_s": 1.0})
    {'lr critic': 0.1}
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            numbers.update({f"{name} {turn}": v for turn, v in value.items() if v is not None})
        elif name not in _PLACE and value is not None:
            numbers[name] = value
    return numbers


def curves(history: list[Row]) -> list[Figure]:
    """One figure per quantity, with a line per split."""
    series: dict[str, Lines] = {}
    for row in history:
        for name, value in flat(row).items():
            steps, values = series.setdefault(name, {}).setdefault(row["split"], ([], []))
            steps.append(row["step"])
            values.append(value)
    return [_figure(f"figure-{index}", *item) for index, item in enumerate(series.items())]


def _figure(id: str, name: str, lines: Lines) -> Figure:
    traces = [
        {
            "x": x,
            "y": y,
            "name": split,
            "mode": "lines+markers" if len(x) < _FEW else "lines",
            **_LOOKS[split],
        }
        for split, (x, y) in lines.items()
    ]
    layout = {"xaxis": {"title": {"text": "step"}}, "yaxis": axis(name, lines)}
    return Figure(id, name.replace("_", " "), traces, layout)


def axis(name: str, lines: Lines) -> dict[str, Any]:
    """The y axis that suits a quantity."""
    if name.startswith("grad_norm"):
        return {"type": "log"}
    if name.startswith("lr"):  # a constant one would otherwise be drawn on an axis from -1 to 1
        return {"range": [0, 1.1 * max(max(values) for _, values in lines.values())]}
    return {}


def headline(history: list[Row]) -> list[tuple[str, str]]:
    """The numbers a person looks for first: how far, how long, and each validation term then and now."""
    shown = [("step", f"{history[-1]['step']}"), ("seconds", f"{history[-1]['elapsed_s']:.1f}")]
    validations = [flat(row) for row in history if row["split"] == "validation"]
    if validations:
        first, last = validations[0], validations[-1]
        shown += [
            (f"validation {n.replace('_', ' ')}", f"{first.get(n, nan):.4g} → {v:.4g}")
            for n, v in last.items()
        ]
    return shown
