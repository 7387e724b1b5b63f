"""Texts: made by the generation whose version their answer bears, and stopped wherever they are given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest

from triptych.bundle.manifest import TextSampler
from triptych.errors import Overloaded
from triptych.serve.catalog import Catalog, Model
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.app import ROUTES
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.routing import Router
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Settings
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.work import TextPiece

TEXT = TextSampler(graph="g", score_graph="s", vocab_size=9, block_size=4, layers=1, kv_heads=1, head_dim=1)


class Says:
    """A pool whose texts are its version, behind the pieces `before`; it takes `room` of them."""

    before: tuple[TextPiece, ...] = ()

    def __init__(self, version: str, room: int = 8) -> None:
        self.version, self.room, self.streams = version, room, list[PieceStream]()

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        if len(self.streams) == self.room:
            raise Overloaded("full")
        stream = PieceStream(len(self.streams), payload, buffer=9, on_end=lambda _: None)
        pieces = [*self.before, TextPiece(self.version, 1, -0.5, finish_reason="stop")]
        stream.put(msgspec.msgpack.encode(pieces))
        stream.end()
        self.streams.append(stream)
        return stream


class Client:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.said = b""

    def write(self, data: bytes) -> None:
        self.said += data

    def head(self, status: int) -> bytes:
        return b""

    async def drain(self) -> None:
        pass

    def end(self, exchange: Exchange) -> None:
        pass


@pytest.fixture
def generation(make_model: Callable[..., Model]) -> Callable[..., Generation]:
    """A generation with the text model `poet` of some version."""

    def generation(version: str, room: int = 8) -> Generation:
        model = make_model("poet", version)
        manifest = msgspec.structs.replace(model.manifest, sampler=TEXT)
        return Generation(Catalog(poet=Model(model.folder, manifest, 0)), Says(version, room))  # type: ignore[arg-type]

    return generation


REQUESTS = [
    ("/v1/models/poet/sample", {"n": 2}),
    ("/v1/completions", {"model": "poet", "prompt": "a"}),
    (
        "/v2/models/poet/infer",
        {"inputs": [{"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
    ),
]


def ask(gateway: Gateway, path: str, body: object) -> tuple[Exchange, Client]:
    content, client = json.dumps(body).encode(), Client()
    headers = {b"content-length": b"%d" % len(content)}
    exchange = Exchange(gateway, client, "POST", path, headers)
    exchange.feed(content)
    exchange.feed_end()
    return exchange, client


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_a_text_is_made_by_the_generation_whose_version_it_bears(generation, path: str, body: object):
    gateway = Gateway(generation("aaaaaaaaaaaa"), Settings(), Metrics())
    exchange, client = ask(gateway, path, body)
    route, parts = Router(ROUTES).find("POST", path)
    answering = asyncio.ensure_future(route.answer(exchange, **parts))
    gateway.generation = generation("bbbbbbbbbbbb")  # a swap, before its turn has come
    await answering
    assert b"bbbbbbbbbbbb" in client.said
    assert b"aaaaaaaaaaaa" not in client.said


@pytest.mark.anyio
async def test_texts_of_a_request_that_cannot_be_met_whole_are_stopped(generation):
    gateway = Gateway(generation("aaaaaaaaaaaa", room=2), Settings(), Metrics())
    exchange, _ = ask(gateway, "/v1/completions", {"model": "poet", "prompt": "a", "n": 3})
    route, parts = Router(ROUTES).find("POST", exchange.path)
    with pytest.raises(Overloaded):
        await route.answer(exchange, **parts)
    with pytest.raises(StopAsyncIteration):
        await anext(gateway.pool.streams[0])  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_stream_with_log_probabilities_has_as_many_as_the_whole_answer(generation):
    gateway, made = Gateway(generation("aaaaaaaaaaaa"), Settings(), Metrics()), []
    held_back = TextPiece("", 2, -1.5, top=(("b", -1.5), ("c", -2.5)))
    gateway.pool.before = (held_back, TextPiece("b", 3, -2.5), held_back)  # type: ignore[attr-defined]
    for is_stream in (False, True):
        body = {"model": "poet", "prompt": "a", "logprobs": 1, "stream": is_stream}
        exchange, client = ask(gateway, "/v1/completions", body)
        route, parts = Router(ROUTES).find("POST", exchange.path)
        await route.answer(exchange, **parts)
        made.append(client.said)
    whole = json.loads(made[0].partition(b"\r\n\r\n")[2])["choices"][0]["logprobs"]
    lines = [line for line in made[1].split(b"\n") if line.startswith(b"data: {")]
    parts = [json.loads(line.removeprefix(b"data: "))["choices"][0]["logprobs"] for line in lines]
    assert whole["token_logprobs"] == [-1.5, -2.5, -1.5, -0.5]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [value for part in parts for value in part[name]] == whole[name]
    shown = [part["top_logprobs"][0] if part["top_logprobs"] else None for part in parts]
    assert shown == whole["top_logprobs"]
