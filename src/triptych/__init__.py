"""Triptych: train, export and serve deep generative models.

Three panels joined by two hinges::

    learn (torch)  --bundle-->  infer (no torch)  --message-->  serve (no torch)

Importing this package imports nothing heavy: the public names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Engine", "__version__", "load"]

if TYPE_CHECKING:
    from triptych.infer import Engine, load

_LAZY = {"load": "triptych.infer", "Engine": "triptych.infer"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'triptych' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
