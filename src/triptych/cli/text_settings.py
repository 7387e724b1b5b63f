"""What the command line accepts of settings of a text: those that would have no effect are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.errors import ConfigError

CHOOSING = ("top_k", "top_p", "min_p")  # which tokens may be drawn


def flag(name: str) -> str:
    """The flag of a setting.

    >>> flag("top_k")
    '--top-k'
    """
    return "--" + name.replace("_", "-")


def check_text_settings(given: Mapping[str, Any], n: int | None, seed: int | None) -> None:
    """Raise ConfigError for settings, None where not given, that do nothing beside the others."""
    if given["temperature"] == 0:
        idle = {name: given[name] for name in CHOOSING} | {"seed": seed, "n": n if n != 1 else None}
        for name, value in idle.items():
            if value is not None:
                raise ConfigError(
                    "has no effect with --temperature 0",
                    where=flag(name),
                    remedy="without chance there is one text, of the likeliest tokens",
                )


def refuse_text_settings(given: Mapping[str, Any]) -> None:
    """Settings of text have no effect on arrays and pictures, so they are errors there."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError("has no effect here", where=flag(name), remedy="write to a file ending in .txt")
