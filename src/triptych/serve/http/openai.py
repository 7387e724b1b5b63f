"""The routes that OpenAI's clients call: models, and completions, whole or as server-sent events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from triptych.errors import InputError, TriptychError
from triptych.serve.catalog import Model
from triptych.serve.http.exchange import Exchange, new_seed
from triptych.serve.http.native import check_limit, watch_task
from triptych.serve.http.refusal import encode, openai_body, status_of
from triptych.serve.http.schemas import CompletionBody, Token
from triptych.serve.http.streaming import Choice, collect, pieces
from triptych.serve.work import EVENTS, JSON, TextPiece, TextWork

MAX_TOKENS = 16  # OpenAI's default


async def list_models(exchange: Exchange) -> None:
    """`GET /v1/models`."""
    catalog = exchange.gateway.catalog
    await exchange.answer(
        200, encode({"object": "list", "data": [card(m) for m in catalog.values()]}), JSON, []
    )


async def show_model(exchange: Exchange, name: str) -> None:
    """`GET /v1/models/{model}`."""
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
    """`POST /v1/completions`."""
    exchange.read_deadline()
    body = await exchange.json(CompletionBody)
    model = exchange.gateway.catalog.find(body.model)
    exchange.model = model.name
    if not model.is_text:
        raise InputError(
            f"`{model.name}` makes no text", where="model", remedy=f"use /v1/models/{model.name}/sample"
        )
    if body.stream_options is not None and not body.stream:
        raise InputError("needs `stream`", where="stream_options", valid="null unless `stream` is true")
    seed = new_seed() if body.seed is None else body.seed
    prompts = as_prompts(body.prompt)
    works = as_works(exchange, body, prompts, seed)
    echoes = [str(work.prompt) if body.echo else "" for work in works]
    watch_task(exchange)
    answer = Completion(model, body.logprobs is not None, echoes)
    headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    if body.stream:
        usage = body.stream_options is not None and body.stream_options.include_usage
        await stream(exchange, answer, works, headers, len(prompts), usage)
    else:
        choices = await collect(exchange, works)
        await exchange.answer(200, encode(answer.whole(choices, len(prompts))), JSON, headers)


def as_prompts(prompt: Any) -> list[str | tuple[int, ...]]:
    """One prompt or several, each text or token ids.

    >>> as_prompts([[1, 2], [3]])
    [(1, 2), (3,)]
    """
    if isinstance(prompt, str):
        return [prompt]
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
    limits, n = exchange.gateway.settings.limits, body.n or 1
    max_tokens = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    check_limit("n", n * len(prompts), limits.rows)
    check_limit("max_tokens", max_tokens, limits.tokens)
    check_limit("n times max_tokens", n * len(prompts) * max_tokens, limits.tokens)
    if body.echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError("needs a prompt of text", where="echo", valid="false when the prompt is token ids")
    if body.echo and body.logprobs is not None:
        raise InputError(
            "has no log-probabilities of the prompt", where="echo", valid="false with `logprobs`"
        )
    return [
        TextWork(
            body.model,
            prompt,
            seed,
            index,
            max_tokens=max_tokens,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_k=body.top_k or 0,
            top_p=1.0 if body.top_p is None else body.top_p,
            stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
        )
        for prompt in prompts
        for index in range(n)
    ]


class Completion:
    """The JSON of one completion, whole or piece by piece."""

    def __init__(self, model: Model, logprobs: bool, echoes: Sequence[str]) -> None:
        self._base = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": model.version,
        }
        self._logprobs, self._echoes = logprobs, list(echoes)
        self._offsets = [len(echo) for echo in echoes]

    def whole(self, choices: Sequence[Choice], prompts: int) -> dict[str, Any]:
        """The answer without streaming."""
        parts = [
            self._choice(index, choice.text, choice.tokens, choice.logprobs, choice.finish_reason)
            for index, choice in enumerate(choices)
        ]
        return {**self._base, "choices": parts, "usage": usage(choices, prompts)}

    def chunk(self, index: int, piece: TextPiece) -> dict[str, Any]:
        """One event of a stream."""
        part = self._choice(index, piece.text, [piece.text], [piece.logprob], piece.finish_reason)
        return {**self._base, "choices": [part]}

    def last(self, choices: Sequence[Choice], prompts: int) -> dict[str, Any]:
        """The event that tells the usage, after all others."""
        return {**self._base, "choices": [], "usage": usage(choices, prompts)}

    def _choice(
        self, index: int, text: str, tokens: list[str], logprobs: list[float], finish_reason: str | None
    ) -> dict[str, Any]:
        echo, self._echoes[index] = self._echoes[index], ""
        start = self._offsets[index]
        self._offsets[index] += len(text)
        shown = None
        if self._logprobs:
            offsets = [start + len("".join(tokens[:number])) for number in range(len(tokens))]
            shown = {
                "tokens": tokens,
                "token_logprobs": logprobs,
                "top_logprobs": None,
                "text_offset": offsets,
            }
        return {"index": index, "text": echo + text, "logprobs": shown, "finish_reason": finish_reason}


def usage(choices: Sequence[Choice], prompts: int) -> dict[str, int]:
    """Tokens read and made; a prompt counts once, however many choices it has."""
    read = sum(choice.prompt_tokens for choice in choices[:: len(choices) // prompts])
    made = sum(len(choice.tokens) for choice in choices)
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
                if piece.text or piece.finish_reason:
                    await send_event(exchange, encode(answer.chunk(index, piece)))
    except TriptychError as error:
        if not exchange.status:
            raise
        await send_event(exchange, openai_body(error, status_of(error)), more=False)
        return
    if with_usage:
        await send_event(exchange, encode(answer.last(choices, prompts)))
    await send_event(exchange, b"[DONE]", more=False)


async def send_event(exchange: Exchange, data: bytes, *, more: bool = True) -> None:
    """One server-sent event."""
    await exchange.piece(b"data: %b\n\n" % data, more=more)
