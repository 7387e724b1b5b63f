"""Flags of the command line for settings of a text: those that would have no effect are errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from triptych.errors import ConfigError

MAX_TOKENS = 200
Prompt = Annotated[str | None, typer.Option(help="Text: what to go on from; nothing if not given.")]
MaxTokens = Annotated[int | None, typer.Option(help=f"Text: how many tokens; {MAX_TOKENS} if not given.")]
Temperature = Annotated[float | None, typer.Option(help="Text: 0 takes the likeliest token; 1 if not given.")]
TopK = Annotated[int | None, typer.Option(help="Text: only the k likeliest tokens; 0 is all.")]
TopP = Annotated[
    float | None,
    typer.Option(help="Text: only the likeliest tokens that together have this probability."),
]
MinP = Annotated[
    float | None, typer.Option(help="Text: only tokens at least this probable beside the likeliest.")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Text: above 1, tokens that were there before are less likely.")
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Text: taken off a token's logit each time it was made.")
]
PresencePenalty = Annotated[
    float | None, typer.Option(help="Text: taken off a token's logit once it was made.")
]
Stop = Annotated[
    list[str] | None, typer.Option(help="Text: ends before this string; may be given several times.")
]
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
