"""The routes that OpenAI's clients call: models, and completions, whole or as server-sent events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import Any

import msgspec

from triptych.bundle.continuation import Continuation
from triptych.errors import InputError, TriptychError
from triptych.serve.catalog import Model
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.native import check_limit, watch_task
from triptych.serve.http.refusal import encode, openai_body, status_of
from triptych.serve.http.schemas import CompletionBody, Token, new_seed
from triptych.serve.http.streaming import Choice, collect, pieces
from triptych.serve.work import EVENTS, JSON, TextPiece, TextWork

MAX_TOKENS = 16  # OpenAI's default


async def list_models(exchange: Exchange) -> None:
    """`GET /v1/models`: the models that are served."""
    catalog = exchange.gateway.catalog
    await exchange.answer(
        200, encode({"object": "list", "data": [card(m) for m in catalog.values()]}), JSON, []
    )


async def show_model(exchange: Exchange, name: str) -> None:
    """`GET /v1/models/{model}`: its version, family, graphs and the shape of a sample."""
    model = exchange.gateway.catalog.find(name)
    await exchange.answer(200, encode(card(model)), JSON, model.headers)


def card(model: Model) -> dict[str, Any]:
    """A model as OpenAI lists it, with its version, family and graphs beside."""
    manifest = model.manifest
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at_s,
        "owned_by": "triptych",
        "version": model.version,
        "family": manifest.family,
        "graphs": list(model.graphs),
        "sample_shape": manifest.sample.shape,
    }


async def complete(exchange: Exchange) -> None:
    """`POST /v1/completions`: go on from a prompt, whole or as server-sent events."""
    body = await exchange.json(CompletionBody)
    model = exchange.find(body.model)
    if not model.is_text:
        raise InputError(
            f"`{model.name}` makes no text", where="model", remedy=f"use /v1/models/{model.name}/sample"
        )
    if body.stream_options is not None and not body.stream:
        raise InputError("needs `stream`", where="stream_options", valid="null unless `stream` is true")
    seed = new_seed() if body.seed is None else body.seed
    prompts = as_prompts(body.prompt)
    works = as_works(exchange, body, prompts, seed)
    watch_task(exchange)
    answer = Completion(model, body.logprobs is not None, len(works))
    headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        await stream(exchange, answer, works, headers, len(prompts), with_usage)
    else:
        made = await collect(exchange, works)
        choices = best(made, len(prompts), body.n or 1)
        await exchange.answer(200, encode(answer.whole(choices, usage(made, len(prompts)))), JSON, headers)


def as_prompts(prompt: Any) -> list[str | tuple[int, ...]]:
    """One prompt or several, each text or token ids.

    >>> as_prompts([[1, 2], [3]])
    [(1, 2), (3,)]
    """
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    kinds: tuple[Any, ...] = (list[Token], list[str], list[list[Token]])
    for kind in kinds:
        try:
            found = msgspec.convert(prompt, kind)
        except msgspec.ValidationError:
            continue
        if found and kind == list[Token]:
            return [tuple(found)]
        if found:
            return [part if isinstance(part, str) else tuple(part) for part in found]
    raise InputError(
        "is neither", where="prompt", valid="text, a list of token ids, or a list of several of these"
    )


def as_works(
    exchange: Exchange, body: CompletionBody, prompts: Sequence[str | tuple[int, ...]], seed: int
) -> list[TextWork]:
    """One piece of work per choice; the noise of choice `index` depends on nothing else asked for."""
    limits, n = exchange.gateway.settings.limits, choices_of(body)
    max_tokens = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    check_limit("n", n * len(prompts), limits.rows)
    check_limit("max_tokens", max_tokens, limits.tokens)
    check_limit("n times max_tokens", n * len(prompts) * max_tokens, limits.tokens)
    check_limit("prompt", n * sum(map(len, prompts)), limits.prompt_characters)
    asked = Continuation(
        prompt="",
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        logit_bias=as_biases(body.logit_bias or {}),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        logprobs=body.logprobs is not None or n > (body.n or 1),
        top_logprobs=body.logprobs or 0,
        echo=bool(body.echo),
        seed=seed,
    )
    return [
        TextWork(body.model, msgspec.structs.replace(asked, prompt=prompt, index=index))
        for prompt in prompts
        for index in range(n)
    ]


def as_biases(given: dict[str, float]) -> dict[int, float]:
    """Biases by token id, whose JSON names are texts."""
    try:
        return msgspec.convert(given, dict[Token, float], str_keys=True)
    except msgspec.ValidationError as error:
        raise InputError(str(error), where="logit_bias", valid="token ids as names") from error


def choices_of(body: CompletionBody) -> int:
    """How many texts are made for each prompt. Raises `InputError` for what cannot be, or does nothing."""
    n = body.n or 1
    if body.best_of is None:
        return n
    if body.stream:
        raise InputError("does not go with `stream`", where="best_of", valid="null with `stream`")
    if body.best_of < n:
        raise InputError(f"got {body.best_of}", where="best_of", valid=f"{n} (`n`) or more")
    return body.best_of


def best(choices: Sequence[Choice], prompts: int, n: int) -> list[Choice]:
    """The `n` choices of each prompt with the highest log-probability per token, or all as they are."""
    each = len(choices) // prompts
    if each == n:
        return list(choices)
    groups = [choices[start : start + each] for start in range(0, len(choices), each)]
    ranked = [sorted(group, key=lambda choice: choice.mean_logprob, reverse=True) for group in groups]
    return [choice for group in ranked for choice in group[:n]]


class Completion:
    """The JSON of one completion, whole or piece by piece."""

    def __init__(self, model: Model, logprobs: bool, choices: int) -> None:
        self._base = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": model.version,
        }
        self._logprobs, self._offsets = logprobs, [0] * choices

    def whole(self, choices: Sequence[Choice], used: dict[str, int]) -> dict[str, Any]:
        """The answer without streaming."""
        parts = [self._choice(index, choice) for index, choice in enumerate(choices)]
        return {**self._base, "choices": parts, "usage": used}

    def shows(self, piece: TextPiece) -> bool:
        """Whether a stream tells of a piece: one without text too, where its token is asked for."""
        return bool(piece.text or piece.finish_reason or self._logprobs)

    def chunk(self, index: int, piece: TextPiece) -> dict[str, Any]:
        """One event of a stream."""
        choice = Choice()
        choice.add(piece)
        return {**self._base, "choices": [self._choice(index, choice)]}

    def last(self, choices: Sequence[Choice], prompts: int) -> dict[str, Any]:
        """The event that tells the usage, after all others."""
        return {**self._base, "choices": [], "usage": usage(choices, prompts)}

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        start, shown, text = self._offsets[index], None, choice.text
        self._offsets[index] += len(text)
        if self._logprobs:
            lengths = accumulate(map(len, choice.tokens), initial=start)
            shown = {
                "tokens": choice.tokens,
                "token_logprobs": choice.logprobs,
                "top_logprobs": choice.top if any(choice.top) else None,
                "text_offset": list(lengths)[:-1],
            }
        return {
            "index": index,
            "text": text,
            "logprobs": shown,
            "finish_reason": choice.finish_reason,
        }


def usage(choices: Sequence[Choice], prompts: int) -> dict[str, int]:
    """Tokens read and made; a prompt counts once, however many choices it has."""
    read = sum(choice.prompt_tokens for choice in choices[:: len(choices) // prompts])
    made = sum(choice.made for choice in choices)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


async def stream(
    exchange: Exchange,
    answer: Completion,
    works: Sequence[TextWork],
    headers: list[tuple[bytes, bytes]],
    prompts: int,
    with_usage: bool,
) -> None:
    """Server-sent events: a chunk per piece of text, then `[DONE]`; a late error is an event too."""
    choices = [Choice() for _ in works]
    try:
        async with aclosing(pieces(exchange, works)) as merged:
            async for index, piece in merged:
                choices[index].add(piece)
                if not exchange.status:  # until here an error still has its own status
                    await exchange.begin(200, EVENTS, [(b"cache-control", b"no-cache"), *headers])
                if answer.shows(piece):
                    await send_event(exchange, encode(answer.chunk(index, piece)))
    except TriptychError as error:
        if not exchange.status:
            raise
        exchange.note(error)
        await send_event(exchange, openai_body(error, status_of(error)), more=False)
        return
    if with_usage:
        await send_event(exchange, encode(answer.last(choices, prompts)))
    await send_event(exchange, b"[DONE]", more=False)


async def send_event(exchange: Exchange, data: bytes, *, more: bool = True) -> None:
    """One server-sent event."""
    await exchange.piece(b"data: %b\n\n" % data, more=more)
