"""The only place that imports torch: models, their formulas, data, training, evaluation, export.

>>> from triptych.learn import VAE
>>> VAE.family
'vae'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

# The first multi-threaded vectorised exp/log/sqrt/tanh of a process races on MKL's detection of the CPU type
# (pytorch/pytorch#188792): about one run in thirty computes half of one tensor with a low-accuracy kernel, so
# one seed would have two possible weight files. One small exp on the main thread, before anything else,
# settles it.
torch.zeros(1).exp()

if TYPE_CHECKING:
    from triptych.learn import data as datasets
    from triptych.learn.models import VAE, VQVAE, WGANGP, Transformer
    from triptych.learn.train import Trainer

__all__ = ["VAE", "VQVAE", "WGANGP", "Trainer", "Transformer", "datasets"]

_HOMES = {
    "VAE": "triptych.learn.models",
    "VQVAE": "triptych.learn.models",
    "WGANGP": "triptych.learn.models",
    "Transformer": "triptych.learn.models",
    "Trainer": "triptych.learn.train",
}


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return import_module("triptych.learn.data")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
