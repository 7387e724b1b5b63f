"""What runs in a worker process: a handler of work, and the loop that feeds it from its channel."""

from __future__ import annotations

import gc
import logging
import os
import socket
import time
from enum import IntEnum
from importlib import import_module
from typing import Any, Protocol

import msgspec

from triptych.errors import InputError, ServeError
from triptych.serve.supervise.activity import Activity, Doing
from triptych.serve.supervise.channel import MAX_BODY_BYTES, BlockingChannel, Frame
from triptych.serve.supervise.failure import Failure

log = logging.getLogger(__name__)


class StreamEvent(msgspec.Struct, frozen=True, array_like=True):
    """One step of one stream: a piece of its answer, whether it was the last, whether it ended badly."""

    stream_id: int
    piece: bytes = b""
    done: bool = False
    failure: Failure | None = None


class WorkHandler(Protocol):
    """The work itself. One thread calls it; it may crash, hang or be killed without harm to anyone else.

    It is made by the factory named in `WorkerPool(target=...)`, called with `args` in the worker process.
    Answers must depend on the payload alone, because work that lost its worker is done again by another.
    """

    def handle_batch(self, payloads: list[bytes]) -> list[bytes | Failure]:
        """Answer one-shot work: one answer per payload, in order. Raising fails the batch as a whole."""

    def open_stream(self, stream_id: int, payload: bytes) -> None:
        """Let a stream join; raising ends that stream alone."""

    def step(self) -> list[StreamEvent]:
        """Advance every open stream by one step; called in a loop while streams are open.

        Between steps the channel is drained, so batches, new streams and cancellations interleave. A stream
        that says `done` or carries a failure is over: `close_stream` is not called for it. Raising fails all
        open streams, and `close_stream` is called for each.
        """

    def close_stream(self, stream_id: int) -> None:
        """Forget a stream whose reader went away."""

    def close(self) -> None:
        """Called once, before the process ends in good order."""


class WorkerCall(msgspec.Struct, frozen=True):
    """What a worker process is started with: its handler, and the descriptors it inherits."""

    target: str
    args: Any
    channel: int
    activity: int
    nice: int = 0


class Kind(IntEnum):
    """The kinds of frame; those to the worker first."""

    BATCH = 1
    OPEN = 2
    CLOSE = 3
    READY = 65
    FAILED = 66  # the handler could not be made
    ANSWERS = 67
    BATCH_FAILED = 68
    EVENTS = 69


DRAIN_S = 0.05  # streams that join may keep those that are open waiting for this long
BEAT_S = 0.25  # a worker whose steps bring no events says this often that it is alive

encode = msgspec.msgpack.encode
decode_payloads = msgspec.msgpack.Decoder(list[bytes]).decode


class Worker:
    """The loop of a worker process."""

    def __init__(self, channel: BlockingChannel, activity: Activity, handler: WorkHandler) -> None:
        self._channel, self._activity, self._handler = channel, activity, handler
        self._open: set[int] = set()
        self._spoke_at_s = time.monotonic()

    def run(self) -> None:
        """Serve until the node closes the channel."""
        try:
            while True:
                self._drain()
                if self._open:
                    self._step()
        except EOFError:
            return

    def _drain(self) -> None:
        """Handle waiting frames; at most one batch, and not for long, so that open streams get their step."""
        frame = self._channel.receive(wait=not self._open)
        until_s = time.monotonic() + DRAIN_S
        while frame is not None:
            self._handle(frame)
            if self._open and (frame.kind == Kind.BATCH or time.monotonic() > until_s):
                return
            frame = self._channel.receive(wait=False)

    def _handle(self, frame: Frame) -> None:
        if frame.kind == Kind.BATCH:
            self._batch(frame.id, frame.body)
        elif frame.kind == Kind.OPEN:
            self._open_stream(frame.id, frame.body)
        elif frame.kind == Kind.CLOSE and frame.id in self._open:
            self._open.discard(frame.id)
            self._close_stream(frame.id)

    def _send(self, kind: Kind, id: int = 0, body: bytes = b"") -> None:
        self._channel.send(kind, id, body)
        self._activity.write(Doing.NOTHING)
        self._spoke_at_s = time.monotonic()

    def _batch(self, id: int, body: bytes) -> None:
        payloads = decode_payloads(body)
        self._activity.write(Doing.BATCH, id)
        try:
            answers = self._handler.handle_batch(payloads)
            if len(answers) != len(payloads):
                raise ServeError(f"{len(answers)} answers for {len(payloads)} payloads", where="handle_batch")
            reply, kind = encode(answers), Kind.ANSWERS
            if len(reply) > MAX_BODY_BYTES:
                raise InputError(
                    f"takes {len(reply)} bytes on its way from a worker",
                    where="answer",
                    valid=f"at most {MAX_BODY_BYTES}",
                    remedy="ask for less at a time",
                )
        except Exception as error:
            reply, kind = encode(Failure.of(error)), Kind.BATCH_FAILED
        self._send(kind, id, reply)

    def _open_stream(self, id: int, payload: bytes) -> None:
        self._activity.write(Doing.OPEN, id)
        try:
            self._handler.open_stream(id, payload)
        except Exception as error:
            self._send(Kind.EVENTS, 0, encode([StreamEvent(id, done=True, failure=Failure.of(error))]))
        else:
            self._open.add(id)
            self._activity.write(Doing.NOTHING)

    def _step(self) -> None:
        self._activity.write(Doing.STEP)
        try:
            events = self._handler.step()
        except Exception as error:
            failure = Failure.of(error)
            events = [StreamEvent(id, done=True, failure=failure) for id in sorted(self._open)]
            for event in events:
                self._close_stream(event.stream_id)
        self._open.difference_update(event.stream_id for event in events if event.done or event.failure)
        if events or time.monotonic() - self._spoke_at_s > BEAT_S:
            self._send(Kind.EVENTS, 0, encode(events))
        else:
            self._activity.write(Doing.NOTHING)

    def _close_stream(self, id: int) -> None:
        self._activity.write(Doing.CLOSE, id)
        try:
            self._handler.close_stream(id)
        except Exception:
            log.exception("close_stream raised")
        self._activity.write(Doing.NOTHING)


def serve(call: dict[str, Any]) -> int:
    """Entry point of a worker process: make the handler, say READY, serve until the channel ends."""
    given = msgspec.convert(call, WorkerCall)
    channel = BlockingChannel(socket.socket(fileno=given.channel))
    os.nice(given.nice)  # before there are threads, which inherit it
    module, _, factory = given.target.partition(":")
    try:
        handler: WorkHandler = getattr(import_module(module), factory)(given.args)
    except Exception as error:
        channel.send(Kind.FAILED, 0, encode(Failure.of(error)))
        return 1
    gc.freeze()  # what is loaded by now stays: the collector need not walk over it again and again
    try:
        channel.send(Kind.READY, 0)
        Worker(channel, Activity(given.activity), handler).run()
    except (BrokenPipeError, ConnectionResetError):
        return 1  # the node is gone
    handler.close()
    return 0
