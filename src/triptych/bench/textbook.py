"""What the training claims share: the loader that everyone writes, and our side with its clock."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from triptych.bench.comparison import Comparison
from triptych.errors import TriptychError
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.split import ArraySplit
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import Trainer
from triptych.learn.train.compiling import cannot_compile
from triptych.learn.train.metrics import Row

THREADS, REPEATS, SEED = 2, 3, 0
Model = TypeVar("Model", bound=GenerativeModel)


class Trained(NamedTuple):
    """A trained model, the seconds of its steps, and what its path was."""

    model: GenerativeModel
    seconds: float
    details: dict[str, Any]


class Pictures(TorchDataset[Tensor]):
    """A picture and a float tensor per item, as the textbook has it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.fromarray(self.x[index, 0].numpy())
        return torch.from_numpy(np.array(image, dtype=np.float32) / 255)[None]


def picture_batches(data: Dataset, batch_size: int, count: int) -> Any:
    """`count` batches of a DataLoader over pictures, in the order in which the trainer takes them."""
    assert isinstance(data.train, ArraySplit)
    passes = -(-count * batch_size // (len(data.train) - len(data.train) % batch_size))
    full = len(data.train) // batch_size * batch_size
    order = [i for epoch in range(passes) for i in data.train.order(SEED, epoch=epoch)[:full].tolist()]
    loader = DataLoader(Pictures(data.train.x), batch_size, sampler=order, drop_last=True)
    return islice(iter(loader), count)


def by_trainer(
    model: GenerativeModel, data: Dataset, steps: int, *, steps_only: bool = False, **settings: Any
) -> Trained:
    """Our side: the trainer, with its log, validation and checkpoint; compiled and in bf16 where that pays.

    Its seconds are those of the whole `fit`, less compiling, which is done once per run and reported; or,
    with `steps_only`, those of its steps, as the reference's are, which neither validates nor saves.
    """
    fast = fast_path()
    with tempfile.TemporaryDirectory() as folder:
        log = {"progress": False, "report": False, "samples": 0}
        trainer = Trainer(
            max_steps=steps, seed=SEED, threads=THREADS, out=Path(folder) / "run", log=log, **fast, **settings
        )
        started_s = time.perf_counter()
        run = trainer.fit(model, data)
        seconds = time.perf_counter() - started_s
    compile_s = run.summary["compile_s"] or 0.0
    seconds = seconds_of_steps(run.history) if steps_only else seconds - compile_s
    return Trained(model, seconds, {**fast, "compile_s": compile_s})


def seconds_of_steps(history: Sequence[Row]) -> float:
    """What all steps take at the rate between the first and the last row of the training log."""
    rows = [row for row in history if row["split"] == "train"]
    per_step = (rows[-1]["elapsed_s"] - rows[0]["elapsed_s"]) / (rows[-1]["step"] - rows[0]["step"])
    return float(per_step * rows[-1]["step"])


def fast_path() -> dict[str, Any]:
    """The settings for speed that this machine bears: a compiler for `compile`, a processor for bf16."""
    bf16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return {"compile": not cannot_compile(torch.device("cpu")), "precision": "bf16" if bf16 else "f32"}


def compare(
    claim: str,
    reference: str,
    textbook: Callable[[], Trained],
    ours: Callable[[], Trained],
    measure: Callable[[GenerativeModel], float],
    *,
    what: str,
    gate: float,
    steps: int | None = None,
) -> list[Comparison]:
    """Train both sides once and compare what they reached; then time them by turns.

    With `steps` the claim is the rate of the steps alone.
    """
    torch.set_num_threads(THREADS)
    theirs, mine = textbook(), ours()
    reached = measure(theirs.model), measure(mine.model)
    if abs(reached[0] - reached[1]) > gate:
        raise TriptychError(
            f"{what} {reached[0]:.4f} and {reached[1]:.4f}", where="bench train", valid=f"within {gate}"
        )
    pairs = [(textbook().seconds, ours().seconds) for _ in range(REPEATS)]
    path = ", ".join(f"{key} = {value}" for key, value in mine.details.items() if key != "compile_s")
    return [
        Comparison(
            claim=claim,
            reference=reference,
            ours=f"Trainer ({path}), with its log{'' if steps else ', validation and checkpoint'}, "
            "without the time to compile",
            threads=THREADS,
            reference_s=[theirs for theirs, _ in pairs],
            ours_s=[ours for _, ours in pairs],
            equal=f"{what} {reached[0]:.4f} and {reached[1]:.4f}",
            details={
                **mine.details,
                "reference_reached": reached[0],
                "ours_reached": reached[1],
                "compile_pays_after_runs": pays_after(pairs, mine.details["compile_s"]),
                **(rates(pairs, steps) if steps else {}),
            },
        )
    ]


def rates(pairs: list[tuple[float, float]], steps: int) -> dict[str, float]:
    """Steps per second of each side: medians."""
    theirs, ours = zip(*pairs, strict=True)
    return {
        "reference_steps_per_second": steps / statistics.median(theirs),
        "ours_steps_per_second": steps / statistics.median(ours),
    }


def pays_after(pairs: list[tuple[float, float]], compile_s: float) -> float:
    """How many times as long as here a run must be for compiling to have paid."""
    return compile_s / max(1e-9, statistics.median(theirs - ours for theirs, ours in pairs))


@torch.no_grad()
def validation(model: GenerativeModel, data: Dataset) -> float:
    """The validation total in float32 over the validation split, the same noise for both sides."""
    torch.manual_seed(1)
    parts = [(model.validate(batch), weight) for batch, weight in data.validation.whole(500)]
    return sum(float(terms.total) * weight for terms, weight in parts) / sum(weight for _, weight in parts)


def clocked(train: Callable[[], GenerativeModel]) -> Callable[[], Trained]:
    """`train` with the seconds it took."""

    def run() -> Trained:
        started_s = time.perf_counter()
        model = train()
        return Trained(model, time.perf_counter() - started_s, {})

    return run
