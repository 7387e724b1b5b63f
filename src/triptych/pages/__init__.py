"""Pages a person opens: one look, one way to draw a curve, for reports of training and of the demo.

Templates are Jinja's, with autoescape on. plotly.js comes from the plotly wheel, so a page works offline.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import jinja2
import msgspec
from markupsafe import Markup

T = TypeVar("T")

BLUE, ORANGE, GREEN, RED, GREY = "#3b6fd4", "#e07b39", "#2f9e62", "#d13f4c", "#98a2b3"

_LAYOUT: dict[str, Any] = {
    "margin": {"l": 56, "r": 14, "t": 40, "b": 58},
    "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#1d2433"},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "legend": {"orientation": "h", "y": 1.14, "x": 1, "xanchor": "right"},
}


@dataclass(frozen=True)
class Figure:
    """A plotly figure: `id` is its place on the page, `traces` and `layout` are plotly's own words."""

    id: str
    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What `Plotly.newPlot` takes."""
        title = {"text": self.title, "font": {"size": 14}, "x": 0.02, "xanchor": "left"}
        return {"id": self.id, "traces": self.traces, "layout": {**_LAYOUT, "title": title, **self.layout}}


def evenly(items: Sequence[T], most: int) -> list[T]:
    """Up to `most` (2 or more) of `items`, evenly spread, the first and the last among them.

    >>> evenly(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def plotly_script() -> str:
    """The source of plotly.js."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text("utf-8")


def picture(path: Path) -> str:
    """A PNG file as a data URI, so that a page can hold it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def render(
    template: str, *, figures: list[Figure], script: Literal["inline", "beside"], **values: Any
) -> str:
    """The page that `template` makes of `values`, with `figures` drawn into their places.

    Args:
        script: "inline" puts plotly.js into the page (one file of some 5 MB); "beside" expects
            `plotly.min.js` in the page's folder.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("triptych.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    documents = msgspec.json.encode([figure.document() for figure in figures]).decode()
    return environment.get_template(template).render(
        figures=Markup(documents.replace("</", "<\\/")),
        plotly=Markup(plotly_script()) if script == "inline" else None,
        **values,
    )


def write_page(path: Path, page: str) -> None:
    """Write a page in one atomic move: a browser that refreshes never sees half of it."""
    scratch = path.with_name(f".{path.name}.partial")
    scratch.write_text(page, "utf-8")
    os.replace(scratch, path)
