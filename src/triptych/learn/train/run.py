"""A run folder: what training leaves behind, and how to open it again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from triptych.errors import CheckpointError, ConfigError
from triptych.learn.data.dataset import Dataset
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import checkpoint
from triptych.learn.train.metrics import Row
from triptych.learn.train.settings import LogSettings, TrainSettings
from triptych.learn.train.state import Tensors, load_weights

FORMAT_VERSION = 1


def describe(model: GenerativeModel, data: Dataset, train: TrainSettings, log: LogSettings) -> dict[str, Any]:
    """`config.json`: the full effective recipe, with what the data set turned out to be."""
    config = {
        "format_version": FORMAT_VERSION,
        "data": data.section,
        "data_spec": data.spec,
        "model": model.config,
        "train": train,
        "log": log,
    }
    plain: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(config, enc_hook=os.fspath)
    )  # data may be named by a `Path`
    return plain


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write readable JSON in one atomic move."""
    scratch = path.with_name(f".{path.name}.partial")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    os.replace(scratch, path)


@dataclass(frozen=True)
class Run:
    """What training left in `path`. `model` holds the best weights (their moving average, if one was kept).

    `history` is `metrics.jsonl`, `config` is `config.json`, `summary` is `run.json`.
    """

    path: Path
    model: GenerativeModel
    history: list[Row]
    config: dict[str, Any]
    summary: dict[str, Any]
    tokenizer: str | None = None

    def export(self, destination: str | Path, *, name: str | None = None) -> Path:
        """Write the model as a bundle that needs no torch, and return its folder."""
        from triptych.learn.export import export

        training = {**self.summary, "recipe": self.config}
        return export(self.model, Path(destination), name=name, training=training, tokenizer=self.tokenizer)


def open_run(
    path: str | Path, *, model: GenerativeModel | None = None, which: str = "best", raw: bool = False
) -> Run:
    """Open the run folder `path`.

    Args:
        model: a model that already holds the weights; None to build it and load checkpoint `which`.
        which: `best` or `last`.
        raw: take the weights themselves where the run kept their moving average.

    Raises:
        ConfigError: there is no run at `path`, or it kept no moving average that `raw` could leave aside.
        CheckpointError: the weights cannot be read.
    """
    folder = Path(path)
    config, summary = read_json(folder / "config.json"), read_json(folder / "run.json")
    if model is None:
        model = build_model(config["model"], folder)
        source = folder / "checkpoints" / which
        tensors, _ = checkpoint.read(source)
        if raw and "ema" not in tensors:
            raise ConfigError(
                "the run kept no moving average of its weights, so all it has are raw",
                where=str(folder),
                remedy="leave `raw` out, or train with train.ema_decay",
            )
        load_weights(model, tensors["model"] if raw else shown(tensors), str(source))
        model.eval()
    tokenizer = folder / "tokenizer.json"
    return Run(
        path=folder,
        model=model,
        history=read_history(folder),
        config=config,
        summary=summary,
        tokenizer=tokenizer.read_text("utf-8") if tokenizer.is_file() else None,
    )


def shown(tensors: Tensors) -> dict[str, Tensor]:
    """The weights to use: the moving average when there is one."""
    return tensors.get("ema", tensors["model"])


def build_model(section: dict[str, Any], folder: Path) -> GenerativeModel:
    """A model with fresh weights, of a recorded config; `folder` is where that lies."""
    from triptych.learn.models import ModelConfig, build

    try:
        return build(msgspec.convert(section, ModelConfig))
    except msgspec.ValidationError as error:
        raise CheckpointError(f"not a model this Triptych knows: {error}", where=str(folder)) from error


def read_history(folder: Path) -> list[Row]:
    """The rows of `metrics.jsonl`."""
    return [msgspec.json.decode(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


def read_json(path: Path) -> dict[str, Any]:
    """`config.json` or `run.json` of a run."""
    try:
        document: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"there is no readable `{path.name}`",
            where=str(path.parent),
            valid="a run folder, as `triptych train` writes it",
        ) from error
    return document
