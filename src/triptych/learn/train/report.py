"""`report.html`: curves, samples and settings of a run, on one page that refreshes itself while training
runs.

plotly.js lies beside the page, copied from the plotly wheel, so the page works offline.
"""

from __future__ import annotations

import html
import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer

from triptych.bundle.pictures import is_image
from triptych.errors import ConfigError
from triptych.learn.data.dataset import Dataset
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import samples
from triptych.learn.train.metrics import Row
from triptych.learn.train.settings import LogSettings

REFRESH_S = 5
RECONSTRUCTIONS = 16
SHOWN = 6  # pictures over time; the rest are in samples/
_PLACE = ("step", "epoch", "split", "elapsed_s")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<script src="plotly.min.js"></script>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2433; background: #f6f7f9;
        margin: 0 auto; max-width: 1180px; padding: 24px; }}
 h1 {{ font-size: 24px; margin: 0; }} h2 {{ font-size: 17px; margin: 28px 0 8px; }}
 .muted {{ color: #667085; }}
 .grid {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(360px, 1fr)); gap: 14px; }}
 .card {{ background: #fff; border: 1px solid #e3e6eb; border-radius: 8px; padding: 12px; overflow: hidden; }}
 .plot {{ height: 250px; }} img {{ image-rendering: pixelated; width: 100%; display: block; }}
 pre {{ white-space: pre-wrap; margin: 0; font: 13px/1.4 ui-monospace, monospace;
       max-height: 340px; overflow: auto; }}
 .numbers {{ display: flex; gap: 28px; flex-wrap: wrap; margin-top: 14px; }}
 .numbers b {{ display: block; font-size: 20px; }}
</style></head><body>
<h1>{title}</h1><div class="muted">{subtitle}</div>
<div class="numbers">{numbers}</div>
<h2>Curves</h2><div class="grid">{plots}</div>
{reconstructions}
<h2>Samples over training, same seed</h2><div class="grid">{samples}</div>
<h2>Settings</h2><div class="card"><pre>{settings}</pre></div>
<script>
const figures = {figures};
for (const figure of figures) Plotly.newPlot(figure.id, figure.traces, {{
  title: {{text: figure.title, font: {{size: 14}}}}, margin: {{l: 52, r: 12, t: 52, b: 34}},
  xaxis: {{title: {{text: "step"}}}}, yaxis: figure.yaxis,
  legend: {{orientation: "h", y: 1.02, yanchor: "bottom", x: 1, xanchor: "right"}}
}}, {{displayModeBar: false, responsive: true}});
</script></body></html>
"""


class Report:
    """Draws samples into `samples/` and writes the page."""

    def __init__(self, out: Path, config: dict[str, Any], data: Dataset, log: LogSettings) -> None:
        self.out, self.config, self.data, self.log = out, config, data, log
        self._tokenizer = None if data.tokenizer is None else Tokenizer.from_str(data.tokenizer)
        self._prompt = self._encode(log.prompt)
        (out / "samples").mkdir(exist_ok=True)
        if log.report:
            shutil.copyfile(str(files("plotly") / "package_data" / "plotly.min.js"), out / "plotly.min.js")

    def _encode(self, prompt: str) -> list[int] | None:
        if not prompt or self._tokenizer is None:
            return None
        try:
            return list(self._tokenizer.encode(prompt).ids)
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ConfigError(
                f"{prompt!r} has characters that the data set has not", where="log.prompt"
            ) from error

    def sample(self, model: GenerativeModel, step: int) -> None:
        """Draw this moment's samples, and reconstructions where the model makes them; always with
        the same seed.
        """
        shape, folder = self.data.spec.sample_shape, self.out / "samples"
        if not self.log.samples:
            return
        if self._tokenizer is not None:
            count = min(self.log.samples, samples.TEXTS)
            tokens = model.sample(count, seed=samples.SAMPLE_SEED, condition=self._prompt)
            text = samples.decode_texts(tokens, self._tokenizer)
            (folder / samples.sample_name(step, ".txt")).write_text(text, "utf-8")
        elif is_image(shape):
            drawn = model.sample(self.log.samples, seed=samples.SAMPLE_SEED)
            (folder / samples.sample_name(step, ".png")).write_bytes(samples.tile(drawn))
            few = torch.arange(min(RECONSTRUCTIONS, len(self.data.validation)))
            originals = self.data.validation.take(few).x
            if (again := model.reconstruct(originals.to(drawn.device))) is not None:
                picture = samples.side_by_side(originals, again.cpu())
                (self.out / "reconstructions.png").write_bytes(picture)

    def write(self, history: list[Row], *, running: bool) -> None:
        """Write the page from what is known now, in one atomic move."""
        if not self.log.report:
            return
        figures = _figures(history)
        page = _PAGE.format(
            refresh=f'<meta http-equiv="refresh" content="{REFRESH_S}">' if running else "",
            title=html.escape(f"{self.config['model'].get('family', 'model')} on {self.data.name}"),
            subtitle=html.escape(
                f"{self.data.spec.source} · {'training' if running else 'finished'} · {self.out.name}"
            ),
            numbers=_numbers(history),
            plots="".join(f'<div class="card plot" id="{figure["id"]}"></div>' for figure in figures),
            reconstructions=self._reconstructions(),
            samples=self._samples(),
            settings=html.escape(msgspec.json.format(msgspec.json.encode(self.config), indent=2).decode()),
            figures=msgspec.json.encode(figures).decode().replace("</", "<\\/"),
        )
        scratch = self.out / ".report.html.partial"
        scratch.write_text(page, "utf-8")
        os.replace(scratch, self.out / "report.html")

    def _reconstructions(self) -> str:
        if not (self.out / "reconstructions.png").is_file():
            return ""
        return (
            "<h2>Validation examples (above) and their reconstructions (below)</h2>"
            '<div class="card"><img alt="originals and reconstructions" src="reconstructions.png"></div>'
        )

    def _samples(self) -> str:
        found = samples.steps_of((self.out / "samples").glob("step-*"))
        if len(found) > SHOWN:
            found = [found[round(i * (len(found) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
        cards = []
        for step, file in found:
            if file.suffix == ".png":
                body = f'<img alt="samples at step {step}" src="samples/{file.name}">'
            else:
                body = f"<pre>{html.escape(file.read_text('utf-8'))}</pre>"
            cards.append(f'<div class="card"><div class="muted">step {step}</div>{body}</div>')
        return "".join(cards)


def flat(row: Row) -> dict[str, float]:
    """The numbers of a row, without its place; what is given per turn becomes `name turn`.

    >>> flat({"step": 1, "epoch": 0, "split": "train", "lr": {"critic": 0.1}, "elapsed_s": 1.0})
    {'lr critic': 0.1}
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            numbers.update({f"{name} {turn}": v for turn, v in value.items()})
        elif name not in _PLACE and value is not None:
            numbers[name] = value
    return numbers


def _figures(history: list[Row]) -> list[dict[str, Any]]:
    """One figure per quantity, with a line per split."""
    series: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
    for row in history:
        for name, value in flat(row).items():
            steps, values = series.setdefault(name, {}).setdefault(row["split"], ([], []))
            steps.append(row["step"])
            values.append(value)
    looks: dict[str, dict[str, Any]] = {
        "train": {"line": {"color": "#3b6fd4", "width": 1.5}},
        "validation": {"line": {"color": "#e07b39"}},
    }
    return [
        {
            "id": f"figure-{index}",
            "title": name.replace("_", " "),
            "yaxis": _axis(name, lines),
            "traces": [
                {
                    "x": x,
                    "y": y,
                    "name": split,
                    "mode": "lines+markers" if len(x) < 30 else "lines",
                    **looks[split],
                }
                for split, (x, y) in lines.items()
            ],
        }
        for index, (name, lines) in enumerate(series.items())
    ]


def _axis(name: str, lines: dict[str, tuple[list[int], list[float]]]) -> dict[str, Any]:
    if name.startswith("grad_norm"):
        return {"type": "log"}
    if name.startswith("lr"):  # a constant one would otherwise be drawn on an axis from -1 to 1
        return {"range": [0, 1.1 * max(max(values) for _, values in lines.values())]}
    return {}


def _numbers(history: list[Row]) -> str:
    validations = [row for row in history if row["split"] == "validation"]
    shown = {"step": f"{history[-1]['step']}", "seconds": f"{history[-1]['elapsed_s']:.1f}"}
    if validations:
        first, last = flat(validations[0]), flat(validations[-1])
        shown.update(
            {f"validation {n.replace('_', ' ')}": f"{first[n]:.4g} → {v:.4g}" for n, v in last.items()}
        )
    return "".join(
        f"<div class=muted>{html.escape(name)}<b>{value}</b></div>" for name, value in shown.items()
    )
