"""`RUN/tensorboard`: the log and the samples as TensorBoard reads them.

The folder is a function of `metrics.jsonl` and `samples/`: when a run begins or is resumed, its event files
are written anew from these, so no row stands there twice, whatever was killed when.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from triptych.errors import ConfigError
from triptych.learn.train.curves import flat, is_number
from triptych.learn.train.metrics import Row
from triptych.learn.train.samples import sample_name

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from triptych.learn.train.record import Moment


def summary_writer() -> type[SummaryWriter]:
    """The class that writes event files.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed",
            where="log.tensorboard",
            remedy="pip install 'triptych[tensorboard]', or set log.tensorboard = false",
        ) from error
    return SummaryWriter


class Board:
    """Writes each logged row as scalars, and at each validation the samples as an image or a text.

    It is a callback of the trainer.

    Args:
        out: the run folder.
        history: the rows so far.
        elapsed_s: seconds of training so far; with those of a row they give the row's time.
    """

    def __init__(self, out: Path, history: Sequence[Row], *, elapsed_s: float) -> None:
        folder = out / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._samples = out / "samples"
        self._began_s = time.time() - elapsed_s
        # A TensorBoard that is looking on forgets what it has read from the files that are gone.
        self._writer = summary_writer()(str(folder), purge_step=0)
        for row in history:
            self._write(row)
        self._writer.flush()

    def __call__(self, moment: Moment) -> None:
        """Write the row of this moment."""
        self._write(moment.row)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left and let go of the file."""
        self._writer.close()

    def _write(self, row: Row) -> None:
        step, at_s = row["step"], self._began_s + row["elapsed_s"]
        for name, value in flat(row).items():
            tag = f"{name.replace(' ', '/')}/{row['split']}"
            self._writer.add_scalar(tag, value, step, walltime=at_s)
        if row["split"] == "validation":
            for place, value in enumerate(row.get("kl_per_dimension", ())):
                if is_number(value):
                    tag = f"kl_per_dimension/{place}"
                    self._writer.add_scalar(tag, value, step, walltime=at_s)
            self._write_samples(step, at_s)

    def _write_samples(self, step: int, at_s: float) -> None:
        picture, text = (self._samples / sample_name(step, suffix) for suffix in (".png", ".txt"))
        if picture.is_file():
            pixels = np.asarray(Image.open(picture).convert("RGB"))
            self._writer.add_image("samples", pixels, step, at_s, dataformats="HWC")
        if text.is_file():
            words = "    " + text.read_text("utf-8").replace("\n", "\n    ")  # Markdown for "as it is"
            self._writer.add_text("samples", words, step, walltime=at_s)
