"""Images as PNG: one, or many in a grid."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING

from triptych.errors import InputError

if TYPE_CHECKING:  # `is_image` is asked by processes that have no use for numpy
    from numpy import ndarray as Array

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


def is_image(shape: tuple[int | str, ...]) -> bool:
    """Whether a sample of this shape is a picture: (C, H, W) with 1, 3 or 4 channels, or (H, W)."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in CHANNELS)


def png(images: Array, *, columns: int | None = None, gap: int = 1, scale: int = 1) -> bytes:
    """One PNG of all `images`, (n, C, H, W) or (n, H, W) in [0, 1], row by row, `gap` white pixels between
    them.

    `scale` makes each pixel a square of that many.

    Raises: InputError when the samples are not pictures.
    """
    import numpy as np
    from PIL import Image

    if not is_image(images.shape[1:]):
        raise InputError(
            f"samples of shape {images.shape[1:]} are no pictures", where="image", remedy="use .npy"
        )
    pixels = np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels
    n, channels, height, width = pixels.shape
    across = columns or math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    sheet = np.full((channels, down * (height + gap) - gap, across * (width + gap) - gap), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = index // across * (height + gap), index % across * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet[0] if channels == 1 else np.ascontiguousarray(sheet.transpose(1, 2, 0)))
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
