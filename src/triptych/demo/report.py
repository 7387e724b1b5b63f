"""`report.html` of the demo: one self-contained page."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from triptych.demo.cast import PROMPT
from triptych.demo.fault import Fault
from triptych.demo.runs import TrainedRun
from triptych.pages import BLUE, GREEN, GREY, ORANGE, RED, Figure, picture
from triptych.serve.chaos.load import Tally

COLOURS = {"vae": BLUE, "wgan-gp": ORANGE, "transformer": GREEN, "text": GREEN}
LINES = [BLUE, GREY, GREEN, RED]


def machine() -> str:
    """The machine, in a few words."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def percentiles(values: list[float]) -> dict[str, float]:
    """p50, p90, p99 and max, in milliseconds, of latencies in seconds."""
    p50, p90, p99, top = np.percentile(np.array(values) * 1000, [50, 90, 99, 100])
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(top)}


def latency_rows(tally: Tally) -> list[dict[str, Any]]:
    """The latency table: one row per kind of request, and one for all."""
    kinds = sorted({answer.kind for answer in tally.answers})
    groups = [(kind, [a.elapsed_s for a in tally.answers if a.kind == kind]) for kind in kinds]
    groups.append(("all", [a.elapsed_s for a in tally.answers]))
    return [{"name": name, "count": len(values), **percentiles(values)} for name, values in groups]


def curve(run: TrainedRun) -> Figure:
    """Training terms as lines, the watched validation metric with markers."""
    steps, terms = run.training_curve()
    watched = run.validations()
    traces: list[dict[str, Any]] = [
        {
            "x": steps,
            "y": values,
            "name": name.replace("_", " "),
            "mode": "lines",
            "line": {"width": 1.4, "color": colour},
        }
        for (name, values), colour in zip(terms.items(), LINES * 2, strict=False)
    ]
    x, y = zip(*watched, strict=True)
    name = f"validation {run.metric.replace('_', ' ')}"
    # A metric that is also a training term shares its axis; another (the GAN's distance) gets its own.
    own = run.metric not in terms
    look = {"mode": "lines+markers", "line": {"color": ORANGE, "width": 2}, "yaxis": "y2" if own else "y"}
    traces.append({"x": x, "y": y, "name": name, **look})
    layout: dict[str, Any] = {
        "legend": {"orientation": "h", "y": -0.14, "x": 0, "font": {"size": 10}},
        "margin": {"l": 48, "r": 44 if own else 14, "t": 40, "b": 70},
    }
    if own:
        layout["yaxis2"] = {"overlaying": "y", "side": "right", "showgrid": False, "rangemode": "tozero"}
    return Figure(f"curve-{run.role.name}", f"{run.role.title}, over steps", traces, layout)


def latency_figure(tally: Tally) -> Figure:
    """How latencies are spread, per kind of request."""
    traces = [
        {
            "type": "histogram",
            "x": [round(a.elapsed_s * 1000, 2) for a in tally.answers if a.kind == kind],
            "name": kind,
            "opacity": 0.75,
            "nbinsx": 60,
            "marker": {"color": COLOURS[kind]},
        }
        for kind in sorted({a.kind for a in tally.answers})
    ]
    layout = {"barmode": "stack", "xaxis": {"title": {"text": "milliseconds"}}, "yaxis": {"type": "log"}}
    return Figure("latency", "Latency of the calm run", traces, layout)


def kill_figure(fault: Fault) -> Figure:
    """Every request of the fault run at the moment of its answer, with the kill and the replacement."""

    def since_kill(at_s: float) -> float:
        return round(at_s - fault.killed_at_s, 4)

    traces: list[dict[str, Any]] = []
    for kind in sorted({answer.kind for answer in fault.tally.answers}):
        answers = [a for a in fault.tally.answers if a.kind == kind]
        traces.append(
            {
                "type": "scattergl",
                "mode": "markers",
                "name": kind,
                "x": [since_kill(a.answered_at_s) for a in answers],
                "y": [round(a.elapsed_s * 1000, 2) for a in answers],
                "marker": {
                    "size": 4,
                    "opacity": 0.55,
                    "color": [RED if a.error else COLOURS[kind] for a in answers],
                },
            }
        )
    events = [
        (0.0, RED, f"SIGKILL {fault.killed_pid}", "right"),
        (since_kill(fault.replaced_at_s), GREEN, f"{fault.replacement_pid} ready", "left"),
    ]
    layout = {
        "xaxis": {"title": {"text": "seconds since the kill"}},
        "yaxis": {"title": {"text": "milliseconds to the answer"}, "type": "log"},
        "shapes": [
            {
                "type": "line",
                "x0": x,
                "x1": x,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": c, "width": 2},
            }
            for x, c, _, _ in events
        ],
        "annotations": [
            {
                "x": x,
                "yref": "paper",
                "y": 0.99,
                "text": t,
                "showarrow": False,
                "xanchor": a,
                "font": {"color": c},
            }
            for x, c, t, a in events
        ],
    }
    return Figure("kill", "Requests through the kill", traces, layout)


def image_story(run: TrainedRun, moments: int) -> dict[str, Any]:
    """What the page shows of an image model's training."""
    reconstructions = run.path / "reconstructions.png"
    return {
        "title": run.role.title,
        "reconstructions": picture(reconstructions) if reconstructions.is_file() else "",
        "moments": [{"step": step, "picture": picture(path)} for step, path in run.moments(moments)],
    }


def text_story(run: TrainedRun) -> dict[str, Any]:
    """What the page shows of the text model: before and after."""
    (first, before), (last, after) = run.moments(2)
    moments = [
        {"label": f"before training (step {first})", "text": before.read_text("utf-8")},
        {"label": f"after training (step {last})", "text": after.read_text("utf-8")},
    ]
    return {"title": run.role.title, "moments": moments}


def panel(title: str, request: str, *, drawn: str = "", text: str = "") -> dict[str, str]:
    """One of the three panels at the top of the page."""
    return {"title": title, "request": request, "picture": drawn, "text": text}


def text_request(name: str) -> str:
    """The request behind the text panel, as a reader would type it."""
    return f'POST /v1/completions {{"model": "{name}", "prompt": "{PROMPT}", ...}}'


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """`summary.json`."""
    path.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
