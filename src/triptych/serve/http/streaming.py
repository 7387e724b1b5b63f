"""Texts as they are made: several choices of one request, merged into one stream or collected whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from triptych.serve.gateway import TextStream
from triptych.serve.http.exchange import Exchange
from triptych.serve.work import TextPiece, TextWork


class Choice:
    """What one of a request's texts has become so far."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.logprobs: list[float | None] = []
        self.top: list[dict[str, float] | None] = []
        self.finish_reason: str | None = None
        self.prompt_tokens = self.made = 0

    def add(self, piece: TextPiece) -> None:
        """Take in the next piece."""
        self.tokens.append(piece.text)
        self.logprobs.append(piece.logprob)
        self.top.append(likeliest(piece))
        self.made += not piece.is_prompt
        self.finish_reason = piece.finish_reason
        self.prompt_tokens = piece.prompt_tokens or self.prompt_tokens

    @property
    def text(self) -> str:
        """All of it, put together anew."""
        return "".join(self.tokens)

    @property
    def mean_logprob(self) -> float:
        """Log-probability of the tokens made, in nats per token."""
        made = [logprob for logprob in self.logprobs[len(self.logprobs) - self.made :] if logprob is not None]
        return sum(made) / max(1, len(made))


def likeliest(piece: TextPiece) -> dict[str, float] | None:
    """The likeliest tokens at a piece's place, and the one that is there; None if they were not asked for."""
    if not piece.top or piece.logprob is None:
        return None
    found = {piece.text: piece.logprob} if piece.text else {}
    for text, logprob in piece.top:
        found[text] = max(logprob, found.get(text, logprob))
    return found


async def collect(exchange: Exchange, works: Sequence[TextWork]) -> list[Choice]:
    """Every text, whole."""
    choices = [Choice() for _ in works]
    async with aclosing(pieces(exchange, works)) as merged:
        async for index, piece in merged:
            choices[index].add(piece)
    return choices


async def pieces(
    exchange: Exchange, works: Sequence[TextWork]
) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """The pieces of every text as they come, each with the number of its text, and timed."""
    gateway, loop = exchange.gateway, asyncio.get_running_loop()
    first = gateway.metrics.first_token.labels(exchange.model)
    later = gateway.metrics.each_token.labels(exchange.model)
    last_s = [0.0] * len(works)
    async with AsyncExitStack() as opened:
        streams = [
            await opened.enter_async_context(aclosing(gateway.stream(work, deadline_s=exchange.deadline_s)))
            for work in works
        ]
        merged = await opened.enter_async_context(aclosing(merge(streams)))
        async for index, piece in merged:
            now_s = loop.time()
            if last_s[index]:
                later.observe(now_s - last_s[index])
            else:
                first.observe(now_s - exchange.arrived_at_s)
            last_s[index] = now_s
            yield index, piece


async def merge(streams: Sequence[TextStream]) -> AsyncGenerator[tuple[int, TextPiece], None]:
    """What any of `streams` has next, as it comes."""
    waiting = {asyncio.ensure_future(anext(stream, None)): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                index = waiting.pop(task)
                piece = task.result()
                if piece is not None:
                    waiting[asyncio.ensure_future(anext(streams[index], None))] = index
                    yield index, piece
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
