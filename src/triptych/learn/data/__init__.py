"""Data sets, whole batches at a time: in memory, read anew at each visit, or streamed.

>>> from triptych.learn import datasets
>>> datasets.digits().spec.sample_shape
(1, 8, 8)
"""

from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.datasets import (
    digits,
    fashion_mnist,
    from_arrays,
    from_idx,
    shakespeare,
)
from triptych.learn.data.folder import from_folder
from triptych.learn.data.hugging_face import from_hugging_face
from triptych.learn.data.loader import from_loaders
from triptych.learn.data.npy import from_npy
from triptych.learn.data.plain_text import from_text
from triptych.learn.data.torch_dataset import from_torch
from triptych.learn.data.toys import toy_grid, toy_ring

__all__ = [
    "DataSpec",
    "Dataset",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "from_folder",
    "from_hugging_face",
    "from_idx",
    "from_loaders",
    "from_npy",
    "from_text",
    "from_torch",
    "shakespeare",
    "toy_grid",
    "toy_ring",
]
