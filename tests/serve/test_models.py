"""Laws of what a worker computes for texts: who fails, fails alone. The loops are played."""

from types import SimpleNamespace

import msgspec
import pytest

from triptych.bundle.manifest import TextSampler
from triptych.errors import BundleError
from triptych.infer import TokenEvent
from triptych.serve.models import ModelHandler
from triptych.serve.work import AnyWork, Continuation, TextPiece, TextWork

SAMPLER = TextSampler(
    graph="next_token", score_graph="score", vocab_size=9, block_size=8, layers=1, kv_heads=1, head_dim=8
)


class Loop:
    """Gives each of its texts the events that the test says."""

    def __init__(self):
        self.added, self.cancelled, self.events = 0, [], []

    def __len__(self):
        return self.added

    def add(self, request):
        self.added += 1
        return self.added

    def cancel(self, id):
        self.cancelled.append(id)

    def step(self):
        if isinstance(self.events, Exception):
            raise self.events
        return self.events


def engine(loop):
    tokenizer = SimpleNamespace(vocab_size=9, start_token=0, encode=lambda _: [1], decode=lambda _: "a")
    manifest = SimpleNamespace(sampler=SAMPLER)
    return SimpleNamespace(manifest=manifest, tokenizer=tokenizer, decode_loop=lambda _: loop)


@pytest.fixture
def crowd():
    """A handler with two texts of model `a` and one of model `b`, streams 1, 2 and 3; and both loops."""
    loops = {"a": Loop(), "b": Loop()}
    handler = ModelHandler({name: engine(loop) for name, loop in loops.items()})
    encode = msgspec.msgpack.Encoder().encode
    for stream_id, model in ((1, "a"), (2, "a"), (3, "b")):
        work = TextWork(model=model, request=Continuation(prompt="x"))
        assert msgspec.msgpack.decode(encode(work), type=AnyWork) == work
        handler.open_stream(stream_id, encode(work))
    return handler, loops


def said(events):
    """What was said of each stream: its text, or what it failed of."""
    found = {}
    for event in events:
        pieces = msgspec.msgpack.decode(event.piece, type=list[TextPiece]) if event.piece else []
        piece = "".join(piece.text for piece in pieces)
        found[event.stream_id] = event.failure.type if event.failure else piece
        assert event.done == (event.failure is not None)
    return found


def test_a_text_that_fails_ends_alone(crowd):
    handler, loops = crowd
    loops["a"].events = [
        TokenEvent(1, -1, "", error=BundleError("no numbers", where="logits")),
        TokenEvent(2, 4, "y"),
    ]
    loops["b"].events = [TokenEvent(1, 5, "z")]
    assert said(handler.step()) == {1: "BundleError", 2: "y", 3: "z"}
    loops["a"].events = [TokenEvent(2, 4, "y")]
    assert said(handler.step()) == {2: "y", 3: "z"}
    assert loops["a"].cancelled == []


def test_a_model_that_fails_ends_its_own_texts_alone(crowd):
    handler, loops = crowd
    loops["a"].events = MemoryError()
    loops["b"].events = [TokenEvent(1, 5, "z")]
    assert said(handler.step()) == {1: "ServeError", 2: "ServeError", 3: "z"}
    assert sorted(loops["a"].cancelled) == [1, 2]
