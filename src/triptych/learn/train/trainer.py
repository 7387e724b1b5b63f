"""The trainer: one for likelihood, adversarial and autoregressive models alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from triptych.errors import DataError
from triptych.learn.data.dataset import Dataset
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train.device import choose_device
from triptych.learn.train.record import Callback, Moment
from triptych.learn.train.resume import resume_from
from triptych.learn.train.run import Run
from triptych.learn.train.session import Session
from triptych.learn.train.settings import LogSettings, TrainSettings, as_section
from triptych.learn.train.world import joined

__all__ = ["Callback", "Moment", "Trainer", "free_folder"]


class Trainer:
    """Trains any `GenerativeModel` on any `Dataset`.

    Args:
        out: the run folder; by default a new one under `runs/`.
        log: a `LogSettings`, or a dict of its fields.
        callbacks: plain functions, called with a `Moment` after each logged line.
        settings: fields of `TrainSettings`.

    >>> from triptych.learn import VAE, Trainer, datasets
    >>> import tempfile
    >>> model = VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(16,), latent_dim=2))
    >>> trainer = Trainer(max_steps=4, out=tempfile.mkdtemp() + "/run", log={"progress": False})
    >>> trainer.fit(model, datasets.digits()).summary["steps"]
    4
    """

    def __init__(
        self,
        *,
        out: str | Path | None = None,
        log: LogSettings | dict[str, Any] | None = None,
        callbacks: Sequence[Callback] = (),
        **settings: Any,
    ) -> None:
        self.settings = as_section(TrainSettings, settings, "train")
        self.log = log if isinstance(log, LogSettings) else as_section(LogSettings, log or {}, "log")
        self.out = None if out is None else Path(out)
        self.callbacks = tuple(callbacks)

    @classmethod
    def of(cls, settings: TrainSettings, log: LogSettings, out: Path | None) -> Trainer:
        """A trainer from checked sections."""
        return cls(out=out, log=log, **msgspec.structs.asdict(settings))

    def fit(
        self,
        model: GenerativeModel,
        data: Dataset,
        resume: Literal["auto"] | str | Path | None = None,
    ) -> Run:
        """Train `model` on `data` and return the run; the model then holds the best weights.

        In each process that `torchrun` started, this trains together with the others.

        Args:
            resume: None to start anew in an empty folder; "auto" to go on from `checkpoints/last` if there
                is one; or a checkpoint folder to go on from.

        Raises:
            DataError: `data` is no `Dataset`.
            ConfigError: the model does not fit the data, or the folder already holds a run.
            CheckpointError: the checkpoint is damaged, newer, or of another configuration.
            NonFiniteError: the loss was not finite too often.
        """
        if not isinstance(data, Dataset):
            raise DataError(
                f"got a {type(data).__name__}",
                where="Trainer.fit, data",
                valid="a `triptych.learn.datasets.Dataset`",
                remedy="make one of it: `datasets.from_arrays` takes arrays and tensors, `from_torch` a torch"
                " Dataset, `from_loaders` DataLoaders, `from_hugging_face` theirs, `from_folder` pictures",
            )
        data.check(model.config)
        device = choose_device(self.settings.device)
        with joined(device) as world:
            base = Path("runs") / f"{model.family}-{data.name}".replace("_", "-")
            out = Path(world.agree(lambda: str(self.out or free_folder(base))))
            found = world.agree(lambda: _text(resume_from(out, resume)))
            session = Session(
                model,
                data,
                self.settings,
                self.log,
                self.callbacks,
                out=out,
                resume=None if found is None else Path(found),
                world=world,
                device=device,
            )
            return session.run()


def free_folder(base: Path) -> Path:
    """`base`, or the first of `base-2`, `base-3`, ... that is not there yet."""
    count, folder = 1, base
    while folder.exists():
        count += 1
        folder = base.with_name(f"{base.name}-{count}")
    return folder


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
