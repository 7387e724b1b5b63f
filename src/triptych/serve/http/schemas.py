"""The bodies that requests carry: fields, types, ranges and defaults."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Seed = Annotated[int, Meta(ge=0, le=2**63 - 1, description="same seed, same bytes; a random one if absent")]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the bodies: unknown fields are errors."""


class SampleBody(Body, frozen=True):
    """`POST /v1/models/{model}/sample`."""

    n: Annotated[int, Meta(ge=1, description="how many samples")] = 1
    seed: Seed | None = None
    condition: Annotated[
        Any, Meta(description='for conditional models: {"label": 3}, or a list of n labels')
    ] = None


class RunBody(Body, frozen=True):
    """`POST /v1/models/{model}/run/{graph}`: nested lists of numbers by input name, rows first."""

    inputs: dict[str, msgspec.Raw]


class StreamOptions(Body, frozen=True):
    """What a stream ends with."""

    include_usage: bool = False


Token = Annotated[int, Meta(ge=0, lt=2**31)]
Prompt = str | list[Token] | list[str] | list[list[Token]]
Temperature = Annotated[float, Meta(ge=0, le=100, description="0 takes the likeliest token")]
TopK = Annotated[int, Meta(ge=0, lt=2**31, description="draw from this many likeliest tokens; 0 is all")]
Stops = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=16)]


class CompletionBody(Body, frozen=True):
    """`POST /v1/completions`, as OpenAI describes it; `top_k` is an addition."""

    model: str
    prompt: Any = ""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: (
        Annotated[int, Meta(ge=0, lt=2**31, description="draw from this many likeliest tokens; 0 is all")]
        | None
    ) = None
    stop: Annotated[str, Meta(min_length=1)] | Stops | None = None
    seed: Seed | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=0, description="0: of each chosen token")] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=0)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=1)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Meta(ge=0, le=0)] | None = None
