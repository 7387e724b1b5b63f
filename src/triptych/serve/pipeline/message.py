"""The message: one piece of work on its way through the pipeline, and its one terminal answer."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from triptych.errors import ConfigError, ServeError, TriptychError
from triptych.serve.supervise.failure import Failure

if TYPE_CHECKING:
    from triptych.serve.pipeline.acknowledger import Acknowledger

Status = Literal["pending", "ok", "failed", "cancelled"]


class Place(Protocol):
    """Where a message waits: it can be taken out again."""

    def discard(self, message: Message) -> None:
        """Forget `message`, which has been cancelled."""


class Message(msgspec.Struct, eq=False, weakref=False):
    """One piece of work.

    Attributes:
        data: the input; stages may replace it before the batch, the batch reads it.
        acknowledger: told once what became of the message. ack_ref: what the acknowledger knows it by.
        rows: how much of a batch it takes.
        deadline_s: latest useful moment of the answer, on the clock of `loop.time()`; None: any time.
        metadata: facts about it; `redelivered: True` once it was handed out again.
        batcher, batch_key: which batcher it goes to, and which messages it may share a batch with.
        status: `pending` until the batch (or processor) has dealt with it.
        result: the answer, once `status` is `ok`.
        error: the reason, once `status` is `failed` or `cancelled`; what is cancelled stays so.
        deliveries: how often it was handed to `handle_batch`.
        acknowledged: whether its acknowledger was told. place: what it can still be taken out of.
    """

    data: Any
    acknowledger: Acknowledger
    ack_ref: Any = None
    rows: int = 1
    deadline_s: float | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    batcher: str = "default"
    batch_key: Hashable = None
    status: Status = "pending"
    result: Any = None
    error: TriptychError | None = None
    deliveries: int = 0
    acknowledged: bool = False
    place: Place | None = None

    def put_batcher(self, batcher: str) -> Message:
        """Send it to the batcher of that name."""
        self.batcher = batcher
        return self

    def put_batch_key(self, batch_key: Hashable) -> Message:
        """Let it share a batch only with messages of an equal key."""
        self.batch_key = batch_key
        return self

    def put_result(self, result: Any) -> Message:
        """Answer it."""
        if self.status != "cancelled":
            self.result, self.status = result, "ok"
        return self

    def failed(self, reason: BaseException | Failure | str) -> Message:
        """Give it up for `reason`, which its caller will see (an unexpected exception: without its text)."""
        if isinstance(reason, str):
            reason = ServeError(reason)
        elif isinstance(reason, Failure):
            reason = reason.to_error()
        elif not isinstance(reason, TriptychError):
            reason = Failure.of(reason).to_error()
        if self.status != "cancelled":
            self.error, self.status = reason, "failed"
        return self

    def cancel(self, reason: TriptychError | None = None) -> None:
        """Nobody waits for the answer: leave the queue it waits in. Work that has begun is not undone.

        Args:
            reason: `DeadlineExceeded` if the deadline passed; None if its caller went away.
        """
        if self.status == "pending":
            self.error, self.status = reason or ServeError("cancelled by its caller"), "cancelled"
            if self.place is not None:
                self.place.discard(self)

    def configure_ack(self, acknowledger: Acknowledger, ack_ref: Any = None) -> Message:
        """Have another acknowledger told.

        Raises: ConfigError if it has been acknowledged already.
        """
        if self.acknowledged:
            raise ConfigError("already acknowledged", where="Message.configure_ack")
        self.acknowledger, self.ack_ref = acknowledger, ack_ref
        return self

    def ack_immediately(self) -> Message:
        """Tell the acknowledger now, as successful unless it has failed; what happens later is not told."""
        from triptych.serve.pipeline.acknowledger import acknowledge

        if self.status == "pending":
            self.status = "ok"
        acknowledge((self,))
        return self


def rows_of(messages: Iterable[Message]) -> int:
    """How many rows `messages` take together."""
    return sum(message.rows for message in messages)
