"""What a model makes, put on disk to be looked at: tiled pictures, or texts."""

from __future__ import annotations

from math import ceil, sqrt
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

SAMPLE_SEED = 0
TEXTS = 4  # a text takes longer to read than a picture


def tile(images: Tensor, columns: int | None = None, *, scale_to: int = 28) -> Image.Image:
    """Images (N, C, H, W) or (N, H, W) in [0, 1] side by side, row by row; tiny ones are enlarged."""
    x = images.detach().float().cpu()
    x = x[:, None] if x.ndim == 3 else x
    count, channels, height, width = x.shape
    columns = columns or ceil(sqrt(count))
    rows, gap = ceil(count / columns), 1
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        top, left = row * (height + gap) + gap, column * (width + gap) + gap
        sheet[top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    factor = max(1, round(scale_to / max(height, width)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether examples of this shape can be shown as grey or colour pictures."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def side_by_side(originals: Tensor, reconstructions: Tensor) -> Image.Image:
    """Two rows of pictures: originals above, their reconstructions below."""
    return tile(torch.cat([originals, reconstructions]), columns=len(originals))


def decode_texts(tokens: Tensor, tokenizer: Tokenizer) -> str:
    """The texts of (N, T) token ids, with a line of dashes between them."""
    return "\n----------\n".join(tokenizer.decode(row.tolist(), skip_special_tokens=False) for row in tokens)


def sample_name(step: int, suffix: str) -> str:
    """File name of the samples of `step`."""
    return f"step-{step:06d}{suffix}"


def steps_of(files: list[Path]) -> list[tuple[int, Path]]:
    """The files with the steps they show, in order."""
    return sorted((int(file.stem.removeprefix("step-")), file) for file in files)
