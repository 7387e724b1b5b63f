"""Curves of a run: one figure per logged quantity, from `metrics.jsonl`."""

from __future__ import annotations

from math import nan
from typing import Any, TypeGuard

from triptych.learn.train.alarms import SILENT_NATS
from triptych.learn.train.metrics import Row
from triptych.pages import BLUE, ORANGE, Figure

_PLACE = ("step", "epoch", "split", "elapsed_s")
_LOOKS: dict[str, dict[str, Any]] = {
    "train": {"line": {"color": BLUE, "width": 1.5}},
    "validation": {"line": {"color": ORANGE}},
}
_FEW = 30  # points that are few enough to be drawn as points

Lines = dict[str, tuple[list[int], list[float]]]  # split to steps and values


def is_number(value: object) -> TypeGuard[float]:
    """Whether JSON has this as a number: lists are no curves, and null stands for what was none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def flat(row: Row) -> dict[str, float]:
    """The numbers of a row, without its place and lists; what is given per turn becomes `name turn`.

    >>> flat({"step": 1, "epoch": 0, "split": "train", "lr": {"critic": 0.1}, "elapsed_s": 1.0})
    {'lr critic': 0.1}
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            numbers.update({f"{name} {turn}": v for turn, v in value.items() if is_number(v)})
        elif name not in _PLACE and is_number(value):
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


def latents(history: list[Row]) -> list[Figure]:
    """The KL of each latent over training and at the last validation, the busiest latent first."""
    rows = [row for row in history if "kl_per_dimension" in row]
    if not rows:
        return []
    table = [[value if is_number(value) else nan for value in row["kl_per_dimension"]] for row in rows]
    order = sorted(range(len(table[-1])), key=lambda latent: -table[-1][latent])
    ranks, last = [str(latent) for latent in order], [table[-1][latent] for latent in order]
    steps = [row["step"] for row in rows]
    # A latent that carries nothing also looks it: the scale reaches at least so far.
    most = max([value for row in table for value in row if value == value] + [SILENT_NATS])
    axis = {"type": "category", "title": {"text": "latent"}}
    map_ = {
        "type": "heatmap",
        "x": steps,
        "y": ranks,
        "z": [[row[latent] for row in table] for latent in order],
        "zmin": 0,
        "zmax": most,
        "colorscale": [[0, "#f6f7f9"], [1, BLUE]],
        "colorbar": {"thickness": 10, "title": {"text": "nats"}},
    }
    bars = {"type": "bar", "x": ranks, "y": last, "marker": {"color": BLUE}}
    return [
        Figure(
            "latents-over-time",
            "KL of each latent over training",
            [map_],
            {"xaxis": {"title": {"text": "step"}}, "yaxis": {**axis, "autorange": "reversed"}},
        ),
        Figure(
            "latents-now",
            f"KL of each latent at step {steps[-1]}",
            [bars],
            {"xaxis": axis, "yaxis": {"range": [0, 1.1 * most], "title": {"text": "nats"}}},
        ),
    ]


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
        return {"exponentformat": "e", "range": [0, 1.1 * max(max(values) for _, values in lines.values())]}
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
