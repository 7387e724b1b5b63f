"""What a worker does with answers that its channel cannot carry."""

import socket

import msgspec

from triptych.errors import InputError
from triptych.serve.supervise.activity import Activity
from triptych.serve.supervise.channel import BlockingChannel, Frame
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.worker import Kind, Worker


class Wide:
    """Answers a payload with as many bytes as it says."""

    def handle_batch(self, payloads):
        return [b"x" * int(payload) for payload in payloads]


def test_answers_larger_than_a_frame_fail_their_batch_and_the_worker_goes_on(monkeypatch):
    monkeypatch.setattr("triptych.serve.supervise.worker.MAX_BODY_BYTES", 1000)
    ours, theirs = map(BlockingChannel, socket.socketpair())
    for number, words in enumerate([[b"600", b"600"], [b"600"], [b"4"]]):
        ours.send(Kind.BATCH, number, msgspec.msgpack.encode(words))
    activity = Activity.create()
    Worker(theirs, activity, Wide())._drain()
    failed, *answered = (ours.receive(wait=True) for _ in range(3))
    assert (failed.kind, failed.id) == (Kind.BATCH_FAILED, 0)
    error = msgspec.msgpack.decode(failed.body, type=Failure).to_error()
    assert isinstance(error, InputError)
    assert "at most 1000" in str(error)
    assert answered == [
        Frame(Kind.ANSWERS, 1, msgspec.msgpack.encode([b"x" * 600])),
        Frame(Kind.ANSWERS, 2, msgspec.msgpack.encode([b"xxxx"])),
    ]
    activity.close()
    ours.close()
    theirs.close()
