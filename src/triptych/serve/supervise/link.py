"""The node's side of one worker: what it holds, whether it is alive, whose work is handed back when not."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from triptych.errors import InputError
from triptych.serve.supervise.activity import Activity, Doing
from triptych.serve.supervise.channel import MAX_BODY_BYTES, AsyncChannel, Frame
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.log_lines import LogKind
from triptych.serve.supervise.process import ProcessChild, spawn
from triptych.serve.supervise.spec import Exit, Shutdown
from triptych.serve.supervise.stream import PieceStream
from triptych.serve.supervise.worker import Kind, StreamEvent

decode_answers = msgspec.msgpack.Decoder(list[bytes | Failure]).decode
decode_failure = msgspec.msgpack.Decoder(Failure).decode
decode_events = msgspec.msgpack.Decoder(list[StreamEvent]).decode
encode = msgspec.msgpack.encode
PREFIX_BYTES = 5  # the most that msgpack puts in front of a list, and of each of its parts


class Batch:
    """One-shot work and the future of its answers; a `pinned` one is for one worker and dies with it."""

    __slots__ = ("future", "id", "payloads", "pinned")

    def __init__(
        self,
        id: int,
        payloads: list[bytes],
        future: asyncio.Future[list[bytes | Failure]],
        *,
        pinned: bool = False,
    ) -> None:
        self.id, self.payloads, self.future, self.pinned = id, payloads, future, pinned


class Owner(Protocol):
    """Whom a link tells."""

    def link_ready(self, link: WorkerLink) -> None:
        """The worker made its handler."""

    def link_free(self, link: WorkerLink) -> None:
        """The worker has room for more."""

    def link_gone(self, link: WorkerLink, doing: tuple[Doing, int], reason: str) -> None:
        """The worker is dead: `link.batches`, `link.streams` are what it held, `doing` what it was at."""


class WorkerLink:
    """One worker process; a `Child`.

    Attributes:
        batches, streams: what the worker holds, by id.
        state: `starting` until the handler is made, `gone` after death.
        proven: whether a worker of this slot has been ready, this one or one before it.
        refusal: why this worker, or the last one before it, refused to start; empty once one is ready.
    """

    def __init__(
        self,
        owner: Owner,
        slot: int,
        process: ProcessChild,
        sock: socket.socket,
        activity: Activity,
        *,
        start_timeout_s: float,
        silence_timeout_s: float,
    ) -> None:
        self.slot, self.process = slot, process
        self.batches: dict[int, Batch] = {}
        self.streams: dict[int, PieceStream] = {}
        self.state: Literal["starting", "ready", "gone"] = "starting"
        self.hung = self.proven = False
        self.refusal = ""
        self._owner, self._activity = owner, activity
        self._silence_timeout_s = silence_timeout_s
        self._loop = asyncio.get_running_loop()
        self._heard_at_s = self._loop.time()
        self._detail = ""
        self._channel = AsyncChannel(sock, self._on_frame, self._on_close)
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(
            start_timeout_s, self._kill_hung, f"not ready after {start_timeout_s:g} s"
        )
        self._exited: asyncio.Future[Exit] = self._loop.create_future()
        process.exited.add_done_callback(self._gone)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self.process.pid

    @property
    def slots(self) -> int:
        """How many stream slots its streams take."""
        return sum(stream.slots for stream in self.streams.values())

    async def wait(self) -> Exit:
        """Return once the worker is dead and its work is handed back."""
        return await asyncio.shield(self._exited)

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Close the channel, which ends the worker's loop; SIGKILL after `shutdown` seconds."""
        if shutdown == "brutal_kill":
            self.process.send_signal(signal.SIGKILL)
            return await self.wait()
        self._channel.finish()
        await self.process.end_within(shutdown)
        return await self.wait()

    def submit(self, batch: Batch) -> None:
        """Hand the worker a batch; one larger than a frame fails, and the worker never sees it."""
        error = beyond_frame(batch.payloads)
        if error is not None:
            if not batch.future.done():
                batch.future.set_exception(error)
            return
        self._expect()
        self.batches[batch.id] = batch
        self._channel.send(Kind.BATCH, batch.id, encode(batch.payloads))

    def open_stream(self, stream: PieceStream) -> None:
        """Let a stream join the worker; one whose payload is larger than a frame ends instead."""
        error = beyond_frame([stream.payload])
        if error is not None:
            stream.end(error)
            return
        self._expect()
        self.streams[stream.id] = stream
        self._channel.send(Kind.OPEN, stream.id, stream.payload)

    def close_stream(self, stream: PieceStream) -> None:
        """Have the worker forget a stream."""
        if self.streams.pop(stream.id, None) is not None:
            self._channel.send(Kind.CLOSE, stream.id)
            self._owner.link_free(self)

    def pinned(self) -> Batch | None:
        """The batch meant for this worker alone that it has not answered yet."""
        return next((batch for batch in self.batches.values() if batch.pinned), None)

    def _holds_work(self) -> bool:
        return bool(self.batches or self.streams)

    def _expect(self) -> None:
        """Something is asked of the worker: from now on it must be heard of."""
        if not self._holds_work():
            self._heard_at_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence_timeout_s, self._check_silence)

    def _check_silence(self) -> None:
        self._timer = None
        if not self._holds_work():
            return
        left_s = self._heard_at_s + self._silence_timeout_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check_silence)
        else:
            self._kill_hung(f"silent for {self._silence_timeout_s:g} s")

    def _kill_hung(self, reason: str) -> None:
        self._timer = None
        self.hung, self._detail = True, reason
        self.process.send_signal(signal.SIGKILL)

    def _on_close(self, reason: str) -> None:
        """Without its channel a worker is of no use; its death hands the work back."""
        self._detail = self._detail or reason
        if self.state != "gone":
            self.process.send_signal(signal.SIGKILL)

    def _on_frame(self, frame: Frame) -> None:
        self._heard_at_s = self._loop.time()
        if frame.kind == Kind.EVENTS:
            for event in decode_events(frame.body):
                self._on_event(event)
        elif frame.kind in (Kind.ANSWERS, Kind.BATCH_FAILED):
            self._on_reply(frame)
        elif frame.kind == Kind.READY:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.state, self.proven, self.refusal = "ready", True, ""
            self._owner.link_ready(self)
        elif frame.kind == Kind.FAILED:
            self._detail = self.refusal = str(decode_failure(frame.body).to_error())

    def _on_reply(self, frame: Frame) -> None:
        batch = self.batches.pop(frame.id)
        if not batch.future.done():
            if frame.kind == Kind.ANSWERS:
                batch.future.set_result(decode_answers(frame.body))
            else:
                batch.future.set_exception(decode_failure(frame.body).to_error())
        self._owner.link_free(self)

    def _on_event(self, event: StreamEvent) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return  # closed by its reader a moment ago
        if event.piece and not event.failure:
            stream.put(event.piece)
        if event.done or event.failure:
            self.streams.pop(event.stream_id, None)
            stream.end(event.failure.to_error() if event.failure else None)
            self._owner.link_free(self)

    def _gone(self, exited: asyncio.Future[Exit]) -> None:
        self._channel.receive_all()
        starting = self.state == "starting"
        self.state = "gone"
        self._channel.close()
        if self._timer is not None:
            self._timer.cancel()
        doing = self._activity.read()
        self._activity.close()
        end = exited.result()
        blamed = (doing[0] is Doing.BATCH and doing[1] in self.batches) or (
            doing[0] in (Doing.OPEN, Doing.STEP) and bool(self.streams)
        )
        outside = end.signal == signal.SIGKILL and self.proven and not (self.hung and starting)
        refused = starting and self.proven and self.refusal != "" and self.refusal == self._detail
        charged = (starting or not blamed) and not refused
        end = msgspec.structs.replace(
            end, detail=self._detail, charged=charged and not outside, refused=refused
        )
        self._owner.link_gone(self, doing, end.reason)
        self._exited.set_result(end)


def beyond_frame(payloads: Sequence[bytes]) -> InputError | None:
    """What is wrong with payloads that do not fit into one frame; None if they do."""
    size = sum(map(len, payloads)) + PREFIX_BYTES * (len(payloads) + 1)
    if size <= MAX_BODY_BYTES:
        return None
    return InputError(
        f"takes {size} bytes on its way to a worker", where="body", valid=f"at most {MAX_BODY_BYTES}"
    )


async def start_worker(
    owner: Owner,
    slot: int,
    *,
    name: str,
    call: Callable[[int, int], dict[str, Any]],
    environment: Mapping[str, str] | None,
    log: LogKind | None,
    start_timeout_s: float,
    silence_timeout_s: float,
) -> WorkerLink:
    """Start a worker process and return at once; `owner.link_ready` tells when it has made its handler.

    Args:
        call: makes the arguments of `worker.serve` from the two descriptors the process inherits.
    """
    ours, theirs = socket.socketpair()
    activity = Activity.create()
    with theirs:
        process = await spawn(
            "triptych.serve.supervise.worker:serve",
            call(theirs.fileno(), activity.descriptor),
            name=f"{name} {slot}",
            pass_fds=(theirs.fileno(), activity.descriptor),
            environment=environment,
            log=log,
        )
    return WorkerLink(
        owner,
        slot,
        process,
        ours,
        activity,
        start_timeout_s=start_timeout_s,
        silence_timeout_s=silence_timeout_s,
    )
