"""From a picture to an array: upright, of 8 bits a channel, in the wanted size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from triptych.errors import DataError

Array = np.ndarray
Channels = Literal[1, 3]
GREY = ("1", "L", "LA", "La")


def pixels(picture: Image.Image, *, size: int | None, channels: Channels | None, where: str) -> Array:
    """A picture as uint8 of shape (channels, height, width).

    Args:
        size: side in pixels; a picture that is not square is scaled to cover it and cut to its middle.
        channels: 1 for grey, 3 for colour, None for what the picture has.
    """
    if picture.mode[0] in "IF":  # more than 8 bits a channel: `convert` would cut them off at 255
        raise DataError(
            f"has more than 8 bits a channel (mode {picture.mode})",
            where=where,
            remedy="save it with 8, or scale the pixels yourself and use `from_arrays`",
        )
    upright = ImageOps.exif_transpose(picture)
    grey = channels == 1 or (channels is None and picture.mode in GREY)
    plain = upright.convert("L" if grey else "RGB")
    if size is not None and plain.size != (size, size):
        plain = ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(plain, np.uint8).reshape(plain.height, plain.width, -1).transpose(2, 0, 1)
