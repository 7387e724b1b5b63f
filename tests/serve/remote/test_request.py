"""What comes of a request: whole answers, answers in parts, pieces from several workers, losses."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from triptych.errors import InputError, Poison, WorkerDied
from triptych.serve.remote.pool import in_parts
from triptych.serve.remote.protocol import (
    ANSWERS,
    FAILED,
    LOST,
    MESSAGE_BYTES,
    PART,
    PARTS,
    PIECES,
    Pieces,
)
from triptych.serve.remote.request import BatchRequest, TextRequest
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.stream import PieceStream

pytestmark = pytest.mark.anyio


def message(kind, body, *, id="1/1", reply_to="worker", **headers):
    properties = SimpleNamespace(message_type=kind, correlation_id=id, reply_to=reply_to, headers=headers)
    return SimpleNamespace(header=SimpleNamespace(properties=properties), body=body)


def pieces(start, *texts, done=False, failure=None, **rest):
    told = Pieces(start, [text.encode() for text in texts], done, failure)
    return message(PIECES, msgspec.msgpack.encode(told), **rest)


def text_request():
    stream = PieceStream(1, b"", buffer=100, on_end=lambda _: request.end())
    request = TextRequest("queue", b"", None, stream)
    request.id, request.sendings = "1", 1
    return request


async def received(request):
    return [piece.decode() async for piece in request.stream]


async def test_the_first_answer_counts():
    request = BatchRequest("queue", b"", None, 2)
    request.answer(message(ANSWERS, msgspec.msgpack.encode([b"a", b"b"])))
    request.answer(message(ANSWERS, msgspec.msgpack.encode([b"c", b"d"])))
    assert await request.answers == [b"a", b"b"]
    assert request.ended.done()


async def test_an_answer_in_parts_of_two_workers_is_whole_once_each_part_is_there():
    request = BatchRequest("queue", b"", None, 1)
    body = msgspec.msgpack.encode([b"long" * 10])
    for place in (1, 1, 0):
        assert not request.answers.done()
        request.answer(message(ANSWERS, body[place * 20 :][:20], **{PART: place, PARTS: 3}))
    request.answer(message(ANSWERS, body[40:], **{PART: 2, PARTS: 3}))
    assert await request.answers == [b"long" * 10]


async def test_answers_that_are_too_few_are_no_answers():
    request = BatchRequest("queue", b"", None, 2)
    with pytest.raises(ValueError, match="1 answers to 2 payloads"):
        request.answer(message(ANSWERS, msgspec.msgpack.encode([b"a"])))
    with pytest.raises(msgspec.DecodeError):
        request.answer(message(ANSWERS, b"\xc1"))


async def test_a_failure_is_the_error_it_was():
    request = BatchRequest("queue", b"", None, 1)
    request.answer(message(FAILED, msgspec.msgpack.encode(Failure.of(InputError("no", where="z")))))
    with pytest.raises(InputError, match="no"):
        await request.answers


async def test_a_batch_that_workers_were_lost_with_has_killed_its_worker():
    request = BatchRequest("queue", b"", None, 1)
    request.answer(message(LOST, b"2"))
    with pytest.raises(WorkerDied, match="2 workers"):
        await request.answers


async def test_a_text_goes_on_where_it_was_when_another_worker_begins_it_again():
    request = text_request()
    request.answer(pieces(0, "a", "b"))
    request.answer(pieces(0, "a", reply_to="second"))
    request.answer(pieces(3, "d"))  # a gap: its sender's earlier pieces were lost with a connection
    request.answer(pieces(1, "b", "c", done=True, reply_to="second"))
    assert await received(request) == ["a", "b", "c"]
    assert request.worker == ""


async def test_the_worker_of_the_latest_sending_is_the_one_to_cancel():
    request = text_request()
    request.sendings = 2
    request.answer(pieces(0, "a", id="1/2", reply_to="second"))
    request.answer(pieces(1, "b", id="1/1", reply_to="first"))
    assert request.worker == "second"


async def test_a_text_that_gets_on_is_tried_again_when_workers_are_lost_with_it_else_it_is_poison():
    request, again = text_request(), []
    request.again = lambda: again.append(1)
    for place in range(5):
        request.answer(pieces(place, "a"))
        request.answer(message(LOST, b"2"))
    assert len(again) == 5
    request.answer(message(LOST, b"2"))
    request.answer(message(LOST, b"2"))
    assert len(again) == 6
    with pytest.raises(Poison, match="got no further"):
        await received(request)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [([1], [1]), ([1, 2, 3], [3]), ([5, 4, 4], [1, 2]), ([20, 1], [1, 1]), ([4, 4, 20, 4], [2, 1, 1])],
)
def test_batches_go_in_messages_of_bounded_size(sizes, parts, monkeypatch):
    monkeypatch.setattr("triptych.serve.remote.pool.MESSAGE_BYTES", 8)
    payloads = [bytes(size) for size in sizes]
    found = list(in_parts(payloads))
    assert [len(part) for part in found] == parts
    assert [payload for part in found for payload in part] == payloads
    assert MESSAGE_BYTES > 8
