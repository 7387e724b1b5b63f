"""What a model makes, put on disk to be looked at: tiled pictures, or texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from triptych.bundle import pictures

SAMPLE_SEED = 0
TEXTS = 4  # a text takes longer to read than a picture
LEGIBLE_PIXELS = 28  # smaller pictures are enlarged to about this
POINTS = 2_500  # what a toy's picture shows
PLANE_PIXELS, SCATTER_SCALE = 120, 3
FAINTEST = 0.3  # an exponent below 1: a single point is seen beside a crowd


def tile(images: Tensor, columns: int | None = None) -> bytes:
    """A PNG of images (N, C, H, W) or (N, H, W) in [0, 1], row by row; tiny ones are enlarged."""
    scale = max(1, round(LEGIBLE_PIXELS / images.shape[-1]))
    return pictures.png(images.detach().float().cpu().numpy(), columns=columns, scale=scale)


def scatter(points: Tensor) -> bytes:
    """A PNG of points (N, 2) in [0, 1]^2, dark where many are; the second coordinate points upwards."""
    x, y = points.detach().float().cpu().unbind(1)
    count = torch.histogramdd(torch.stack([1 - y, x], 1), [PLANE_PIXELS] * 2, range=[0.0, 1.0] * 2).hist
    return pictures.png(
        (1 - (count / count.max().clamp(min=1)) ** FAINTEST)[None].numpy(), scale=SCATTER_SCALE
    )


def side_by_side(originals: Tensor, reconstructions: Tensor) -> bytes:
    """A PNG of two rows of pictures: originals above, their reconstructions below."""
    return tile(torch.cat([originals, reconstructions]), columns=len(originals))


def decode_texts(tokens: Tensor, tokenizer: Tokenizer) -> str:
    """The texts of (N, T) token ids, with a line of dashes between them."""
    texts = (tokenizer.decode(row, skip_special_tokens=False) for row in tokens.tolist())
    return "\n----------\n".join(texts)


def sample_name(step: int, suffix: str) -> str:
    """File name of the samples of `step`."""
    return f"step-{step:06d}{suffix}"


def steps_of(files: Iterable[Path]) -> list[tuple[int, Path]]:
    """The files with the steps they show, in order."""
    return sorted((int(file.stem.removeprefix("step-")), file) for file in files)
