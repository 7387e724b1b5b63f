"""Where training goes on from, and whether it may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import CheckpointError, ConfigError
from triptych.learn.train import checkpoint
from triptych.learn.train.state import Tensors

LENGTH = frozenset({"max_epochs", "max_steps"})
# What decides when to stop or save, but no step's outcome.
MAY_CHANGE_ON_RESUME = frozenset({"patience", "checkpoint_every_steps", "guard_retries", "keep_last"})


class Saved(NamedTuple):
    """What a checkpoint holds."""

    tensors: Tensors
    facts: dict[str, Any]


def resume_from(out: Path, resume: str | Path | None) -> Path | None:
    """The checkpoint that `resume` (None, "auto" or a folder) means for the run in `out`.

    Raises:
        ConfigError: the folder holds a run that is not to be resumed, or the checkpoint is another run's.
    """
    if not (resume is None or isinstance(resume, str | Path)):
        raise ConfigError(f"got {resume!r}", where="resume", valid='None, "auto" or a checkpoint folder')
    if resume == "auto":
        return checkpoint.newest(out / "checkpoints")
    if resume is not None:
        return _of_this_run(out, Path(resume))
    log = out / "metrics.jsonl"
    if log.exists() and log.stat().st_size:  # an empty one was left by a run that could not begin
        raise ConfigError(
            "the folder already holds a run",
            where=str(out),
            remedy="resume it with `auto`, or choose another folder",
        )
    return None


def _of_this_run(out: Path, resume: Path) -> Path:
    """The log and the best checkpoint lie beside the checkpoint, so training goes on in the same folder."""
    inside = os.path.abspath(resume.parent) == os.path.abspath(out / "checkpoints")
    if (resume / "state.json").exists() and not inside:
        raise ConfigError(
            f"{resume} is a checkpoint of another run",
            where=str(out),
            valid=f"one of {out / 'checkpoints'}",
            remedy="to branch off, copy that whole run folder and resume in the copy",
        )
    return resume


def read_saved(path: Path, config: dict[str, Any]) -> Saved:
    """The checkpoint at `path`, of a run with this `config.json`.

    Raises:
        CheckpointError: it is damaged, newer, or of another configuration.
    """
    tensors, facts = checkpoint.read(path)
    falling = _falling(config["train"])
    free = MAY_CHANGE_ON_RESUME | (frozenset() if falling else LENGTH)
    if changes := checkpoint.difference(_fixed(facts["config"], free), _fixed(config, free)):
        by_length = LENGTH & {change.split()[0].removeprefix("train.") for change in changes}
        raise CheckpointError(
            "it is of another configuration: " + "; ".join(changes),
            where=str(path),
            remedy=f"with schedule `{falling}` the length sets the learning rate of "
            "every step taken so far: start anew in another folder"
            if by_length
            else "resume with the same settings, or start anew in another folder",
        )
    return Saved(tensors, facts)


def _falling(train: dict[str, Any]) -> str | None:
    """The first schedule in use, by `[train]` or by a turn, that depends on how long training is to be."""
    schedules = (section["schedule"] for section in (train, *train["turns"].values()))
    return next((schedule for schedule in schedules if schedule not in (None, "constant")), None)


def _fixed(config: dict[str, Any], free: frozenset[str]) -> dict[str, Any]:
    """The part of a `config.json` that a resumed run must share with its checkpoint."""
    train = {key: value for key, value in config["train"].items() if key not in free}
    return {**{key: value for key, value in config.items() if key != "log"}, "train": train}
