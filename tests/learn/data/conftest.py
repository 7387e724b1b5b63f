"""The handwritten digits in the shapes that other libraries give data."""

from __future__ import annotations

import datasets as hugging_face
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture(autouse=True)
def on_one_thread(one_thread: None) -> None:
    """Every test here is of small tensors."""


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """120 digits, uint8 (120, 1, 8, 8), and what they are."""
    bunch = load_digits()
    x = np.round(bunch.images / 16 * 255).astype(np.uint8)[:120, None]
    return x, bunch.target[:120].astype(np.int64)


@pytest.fixture(scope="session")
def pictures(digits) -> hugging_face.Dataset:
    """The same as a `datasets` table of pictures with named classes."""
    x, y = digits
    features = hugging_face.Features(
        {
            "image": hugging_face.Image(),
            "label": hugging_face.ClassLabel(names=[f"digit {n}" for n in range(10)]),
        }
    )
    rows = {"image": [Image.fromarray(picture[0]) for picture in x], "label": y.tolist()}
    return hugging_face.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="session")
def documents() -> hugging_face.Dataset:
    """90 short documents."""
    texts = [f"to be or not to be, that is question {n}; " * (1 + n % 7) for n in range(90)]
    return hugging_face.Dataset.from_dict({"text": texts, "title": [f"t{n}" for n in range(90)]})
