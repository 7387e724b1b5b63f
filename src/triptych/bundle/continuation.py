"""What may be asked of a text model: how to go on from a prompt, as engines and servers pass it on."""

from __future__ import annotations

import msgspec


class Continuation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A prompt, and how to go on from it, as a server passes it on to a worker.

    `infer.GenerationRequest` says what each field means, and checks it.
    """

    prompt: str | tuple[int, ...]
    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    echo: bool = False
    seed: int = 0
    index: int = 0
