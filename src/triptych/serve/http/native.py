"""Triptych's own routes: draw samples, run a graph."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Hashable
from functools import partial

import msgspec

from triptych.bundle.condition import row_labels
from triptych.bundle.continuation import Continuation
from triptych.errors import InputError
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.json_body import parse
from triptych.serve.http.refusal import encode
from triptych.serve.http.schemas import RunBody, SampleBody, new_seed
from triptych.serve.http.streaming import collect
from triptych.serve.work import JSON, NPY, PNG, TEXT, RunWork, SampleWork, TextWork, Work

NPY_SHAPE = re.compile(rb"'shape': *\((\d+)")
NPY_HEADER_BYTES = 256


def sample(exchange: Exchange, name: str) -> Awaitable[None] | None:
    """`POST /v1/models/{model}/sample`: `n` samples of `seed`, as JSON, npy or a picture."""
    gateway = exchange.gateway
    model = exchange.find(name)
    accept = exchange.accept((JSON, TEXT) if model.is_text else (JSON, NPY, PNG))
    body = exchange.whole_json(SampleBody)
    check_limit("n", body.n, gateway.settings.limits.rows)
    labels = row_labels(body.condition, body.n, model.manifest.sampler.classes)
    seed = new_seed() if body.seed is None else body.seed
    if model.is_text:
        return sample_texts(exchange, name, body.n, seed, accept)
    headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    work = SampleWork(name, body.n, seed, accept, labels)
    queue(exchange, work, body.n, (name, "sample"), lambda made: exchange.reply(200, made, accept, headers))
    return None


def queue(exchange: Exchange, work: Work, rows: int, key: Hashable, reply: Callable[[bytes], object]) -> None:
    """Have `work` done in a batch; `reply` answers `exchange` with what comes of it, an error does so itself.

    Raises: Overloaded, Draining or DeadlineExceeded at once.
    """

    def done(outcome: bytes | Exception) -> None:
        if isinstance(outcome, bytes):
            reply(outcome)
        else:
            exchange.refuse(outcome)

    ticket = exchange.gateway.submit(work, rows=rows, key=key, deadline_s=exchange.deadline_s, done=done)
    exchange.watch(ticket.cancel)


async def sample_texts(exchange: Exchange, name: str, n: int, seed: int, accept: str) -> None:
    """`n` texts from an empty prompt, as long as the model's samples are."""
    model = exchange.gateway.catalog.find(name)  # of the generation that makes them, which is that of now
    length = 1
    for size in model.manifest.sample.shape:
        length *= int(size)
    check_limit("n times tokens of a sample", n * length, exchange.gateway.settings.limits.tokens)
    works = [
        TextWork(model.name, Continuation(prompt="", max_tokens=length, seed=seed, index=index))
        for index in range(n)
    ]
    watch_task(exchange)
    texts = [choice.text for choice in await collect(exchange, works)]
    if accept == TEXT:
        answer = "\n\n".join(texts).encode()
    else:
        answer = encode(
            {"model": model.name, "version": model.version, "seed": seed, "shape": [n], "samples": texts}
        )
    await exchange.answer(200, answer, accept, [*model.headers, (b"triptych-seed", b"%d" % seed)])


def run(exchange: Exchange, name: str, graph_name: str) -> None:
    """`POST /v1/models/{model}/run/{graph}`: the graph's outputs for the inputs in the body."""
    gateway = exchange.gateway
    model = exchange.find(name)
    graph = model.graph(graph_name)
    accept = exchange.accept((JSON, NPY) if len(graph.outputs) == 1 else (JSON,))
    kind = exchange.content_type((JSON, NPY) if len(graph.inputs) == 1 else (JSON,))
    body = exchange.whole_body()
    if kind == NPY:
        rows = npy_rows(body)
        body = graph.inputs[0].name.encode() + b"\n" + body
    else:
        inputs = parse(body, RunBody, gateway.settings.limits.json_depth).inputs
        rows = json_rows(inputs)
        body = encode(inputs)
    check_limit("rows", rows, gateway.settings.limits.rows)
    work = RunWork(name, graph_name, kind, body, accept, rows)
    reply = partial(exchange.reply, 200, content_type=accept, headers=model.headers)
    queue(exchange, work, rows, (name, graph_name), reply)


def watch_task(exchange: Exchange) -> None:
    """Cancel the task that answers `exchange` when its client goes away."""
    task = asyncio.current_task()
    assert task is not None
    exchange.watch(task.cancel)


def check_limit(where: str, got: int, limit: int) -> None:
    """Raise InputError if `got` is more than `limit`."""
    if got > limit:
        raise InputError(f"got {got}", where=where, valid=f"at most {limit}")


def npy_rows(body: bytes) -> int:
    """The first size of an npy array's shape, read from its header."""
    found = NPY_SHAPE.search(body[:NPY_HEADER_BYTES])
    if not body.startswith(b"\x93NUMPY") or found is None:
        raise InputError("is not an npy array with rows", where="body", valid="the bytes of numpy.save")
    return max(1, int(found[1]))


def json_rows(inputs: dict[str, msgspec.Raw]) -> int:
    """The length of the first input's outer list; what it holds is the worker's to judge."""
    for raw in inputs.values():
        try:
            return max(1, len(msgspec.json.decode(raw, type=list[msgspec.Raw])))
        except msgspec.ValidationError:
            return 1
    return 1
