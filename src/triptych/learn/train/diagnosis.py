"""What a validation measures beside its terms, for the alarms."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from triptych.learn.data.dataset import Dataset
from triptych.learn.data.toys import mixture
from triptych.learn.models.base import Batch, GenerativeModel

Figures = dict[str, float | list[float]]

EXAMPLES = 2_000  # more would not change what is seen
TOY_SAMPLES = 2_500
BATCH = 500


@torch.no_grad()
def diagnose(model: GenerativeModel, data: Dataset) -> Figures:
    """The model's own figures over up to `EXAMPLES` of the validation split; on a toy also the modes hit."""
    device = next(model.parameters()).device
    found = model.diagnose(_first(data, device))
    if (toy := mixture(data.section)) is not None:
        found |= toy.figures(model.sample(TOY_SAMPLES).cpu())
    return found


def _first(data: Dataset, device: torch.device) -> Iterator[Batch]:
    seen = 0
    for batch, _ in data.validation.whole(BATCH):
        labels = None if batch.labels is None else batch.labels.to(device)
        yield Batch(batch.x.to(device), labels)
        seen += len(batch)
        if seen >= EXAMPLES:
            return
