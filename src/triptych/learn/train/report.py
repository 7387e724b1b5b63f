"""`report.html`: curves, samples and settings of a run, on one page that refreshes itself while training
runs.

plotly.js lies beside the page, copied from the plotly wheel, so the page works offline.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
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
from triptych.learn.train.alarms import Alarm, episodes
from triptych.learn.train.curves import curves, headline, latents
from triptych.learn.train.metrics import Row
from triptych.learn.train.settings import LogSettings
from triptych.pages import evenly, plotly_script, render, write_page

REFRESH_S = 5
RECONSTRUCTIONS = 16
SHOWN = 6  # pictures over time; the rest are in samples/


class Report:
    """Draws samples into `samples/` and writes the page."""

    def __init__(self, out: Path, config: dict[str, Any], data: Dataset, log: LogSettings) -> None:
        self.out, self.config, self.data, self.log = out, config, data, log
        self._tokenizer = None if data.tokenizer is None else Tokenizer.from_str(data.tokenizer)
        self._prompt = self._encode(log.prompt)
        self._written_s = -math.inf
        (out / "samples").mkdir(exist_ok=True)
        if log.report:
            (out / "plotly.min.js").write_text(plotly_script(), "utf-8")

    def _encode(self, prompt: str) -> list[int] | None:
        if not prompt:
            return None
        if self._tokenizer is None or not self.log.samples:
            raise ConfigError(
                f"got {prompt!r}, and there are no texts to continue it",
                where="log.prompt",
                remedy="leave it out",
            )
        try:
            ids = list(self._tokenizer.encode(prompt).ids)
        except Exception as error:  # the tokenizers library raises nothing more precise
            raise ConfigError(
                f"{prompt!r} has characters that the data set has not", where="log.prompt"
            ) from error
        if len(ids) > (block_size := self.data.spec.sample_shape[0]):
            raise ConfigError(f"got {len(ids)} tokens", where="log.prompt", valid=f"up to {block_size}")
        return ids

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
        elif shape == (2,):
            points = model.sample(samples.POINTS, seed=samples.SAMPLE_SEED)
            (folder / samples.sample_name(step, ".png")).write_bytes(samples.scatter(points))
        elif is_image(shape):
            drawn = model.sample(self.log.samples, seed=samples.SAMPLE_SEED)
            (folder / samples.sample_name(step, ".png")).write_bytes(samples.tile(drawn))
            few = torch.arange(min(RECONSTRUCTIONS, len(self.data.validation)))
            seen = self.data.validation.take(few)
            labels = None if seen.labels is None else seen.labels.to(drawn.device)
            if (again := model.reconstruct(seen.x.to(drawn.device), labels)) is not None:
                picture = samples.side_by_side(seen.x, again.cpu())
                (self.out / "reconstructions.png").write_bytes(picture)

    def write(self, history: list[Row], *, running: bool, alarms: Sequence[Alarm] = ()) -> None:
        """Write the page from what is known now, in one atomic move; while training runs, not more often than
        it refreshes.
        """
        now_s = time.monotonic()
        if not self.log.report or (running and now_s < self._written_s + REFRESH_S):
            return
        self._written_s = now_s
        figures = [*curves(history), *latents(history)]
        reconstructions = self.out / "reconstructions.png"
        state = "training" if running else "finished"
        page = render(
            "training.html",
            script="beside",
            figures=figures,
            refresh_s=REFRESH_S if running else None,
            title=f"{self.config['model'].get('family', 'model')} on {self.data.name}",
            subtitle=f"{self.data.spec.source} · {state} · {self.out.name}",
            numbers=headline(history),
            alarms=alarms,
            watched=sum("alarms" in row for row in history) > 1,
            over=[episode for episode in episodes(history) if episode.ended_at is not None],
            curves=[figure.id for figure in figures],
            reconstructions=reconstructions.name if reconstructions.is_file() else None,
            moments=self._moments(),
            settings=msgspec.json.format(msgspec.json.encode(self.config), indent=2).decode(),
        )
        write_page(self.out / "report.html", page)

    def _moments(self) -> list[dict[str, Any]]:
        """Samples of up to `SHOWN` moments of training."""
        found = evenly(samples.steps_of((self.out / "samples").glob("step-*")), SHOWN)
        return [
            {"step": step, "picture": f"samples/{file.name}", "text": None}
            if file.suffix == ".png"
            else {"step": step, "picture": None, "text": file.read_text("utf-8")}
            for step, file in found
        ]
