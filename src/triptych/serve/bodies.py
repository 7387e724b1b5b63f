"""Answers as bytes: samples and outputs written as JSON, npy or PNG, inside the worker that computed them."""

from __future__ import annotations

import io

import msgspec
import numpy as np
from PIL import Image

from triptych.bundle.manifest import TensorSpec
from triptych.errors import InputError
from triptych.serve.work import JSON, NPY

Array = np.ndarray
encode_json = msgspec.json.Encoder().encode


def as_npy(array: Array) -> bytes:
    """The bytes `numpy.save` writes."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def as_png(images: Array, spec: TensorSpec) -> bytes:
    """One image as it is, several as a near-square grid with one pixel between; values from `low` to `high` of `spec`."""
    low, high = (0.0 if spec.low is None else spec.low), (1.0 if spec.high is None else spec.high)
    scaled = np.clip((images - low) * (255.0 / (high - low)), 0, 255).round().astype(np.uint8)
    pixels = grid(np.stack([as_pixels(image) for image in scaled]))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def as_pixels(image: Array) -> Array:
    """(H, W) or (H, W, 3) from (H, W), (1, H, W), (3, H, W) or (H, W, 3).

    Raises: InputError if a sample of that shape is no picture.
    """
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = np.moveaxis(image, 0, -1)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3):
        return image
    raise InputError(f"a sample of shape {image.shape} is no picture", where="Accept", valid=f"{JSON}, {NPY}")


def grid(images: Array) -> Array:
    """Images (n, H, W) or (n, H, W, 3) beside and below each other on white."""
    n, height, width = images.shape[:3]
    if n == 1:
        return images[0]  # type: ignore[no-any-return]
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *images.shape[3:]), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + 1), number % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image
    return canvas


def from_npy(body: bytes) -> Array:
    """The array in npy bytes.

    Raises: InputError if they are not npy, are cut short, or hold Python objects.
    """
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)  # type: ignore[no-any-return]
    except (ValueError, EOFError, OSError, SyntaxError, MemoryError) as error:
        raise InputError(f"is not a whole npy file ({error})", where="body", valid="the bytes of numpy.save") from error
