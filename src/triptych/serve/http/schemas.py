"""The bodies that requests carry: fields, types, ranges and defaults."""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

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


class JobBody(Body, frozen=True):
    """`POST /v1/jobs`: a request to be kept safe and answered later."""

    model: Annotated[str, Meta(description="name of the model")]
    kind: Annotated[
        Literal["sample", "run", "completion"], Meta(description="what `request` is: the body of which route")
    ] = "sample"
    request: Annotated[
        dict[str, Any],
        Meta(description="the body of that route; for `run` with `graph` beside `inputs`"),
    ] = {}


class StreamOptions(Body, frozen=True):
    """What a stream ends with."""

    include_usage: bool = False


Token = Annotated[int, Meta(ge=0, lt=2**31)]
Prompt = str | list[Token] | list[str] | list[list[Token]]
Temperature = Annotated[float, Meta(ge=0, le=100, description="0 takes the likeliest token")]
TopK = Annotated[int, Meta(ge=0, lt=2**31, description="draw from this many likeliest tokens; 0 is all")]
Penalty = Annotated[float, Meta(ge=-2, le=2, description="0 is none")]
Stops = Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=16)]


class CompletionBody(Body, frozen=True):
    """`POST /v1/completions`, as OpenAI has it; `top_k`, `min_p` and `repetition_penalty` are additions."""

    model: str
    prompt: Any = ""
    max_tokens: Annotated[int, Meta(ge=0, lt=2**31, description="0 only with `echo`")] | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: (
        Annotated[int, Meta(ge=0, lt=2**31, description="draw from this many likeliest tokens; 0 is all")]
        | None
    ) = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100, description="1 is none")] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: Annotated[str, Meta(min_length=1)] | Stops | None = None
    seed: Seed | None = None
    n: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    best_of: (
        Annotated[int, Meta(ge=1, lt=2**31, description="make this many, return the `n` best")] | None
    ) = None
    logprobs: Annotated[int, Meta(ge=0, le=20, description="of this many likeliest tokens")] | None = None
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None


def new_seed() -> int:
    """A seed for a request that names none: below 2**53, so that every JSON reader keeps it exact."""
    return random.getrandbits(53)
