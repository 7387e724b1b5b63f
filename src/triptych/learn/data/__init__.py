"""Data sets as in-memory tensors, whole batches at a time.

>>> from triptych.learn import datasets
>>> datasets.digits().spec.sample_shape
(1, 8, 8)
"""

from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.datasets import (
    digits,
    fashion_mnist,
    from_arrays,
    from_folder,
    from_idx,
    from_text,
    shakespeare,
)

__all__ = [
    "DataSpec",
    "Dataset",
    "digits",
    "fashion_mnist",
    "from_arrays",
    "from_folder",
    "from_idx",
    "from_text",
    "shakespeare",
]
