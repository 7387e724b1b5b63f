"""The ledger: every message that enters the pipeline is written down, and ended exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from triptych.errors import DeadlineExceeded, Poison
from triptych.serve.pipeline.acknowledger import acknowledge
from triptych.serve.pipeline.handler import BatchInfo, Handler
from triptych.serve.pipeline.message import Message

log = logging.getLogger(__name__)


class PipelineStatistics(msgspec.Struct, frozen=True):
    """Counters since start, and how many messages are inside now.

    `failed` includes `expired` and `poisoned`; `batches` counts emitted batches by reason, `rows` their rows.
    """

    accepted: int
    succeeded: int
    failed: int
    expired: int
    cancelled: int
    redelivered: int
    poisoned: int
    batches: dict[str, int]
    rows: int
    in_progress: int


class Ledger:
    """Counts messages in and out, drops the dead ones, tells the handler and the acknowledgers.

    Attributes:
        inside: messages taken from the producer and not ended.
        changed: set when the last message inside ends, and when a processor does.
    """

    def __init__(self, handler: Handler) -> None:
        self.inside = 0
        self.changed = asyncio.Event()
        self._handler = handler
        self._accepted = self._succeeded = self._failed = self._expired = self._cancelled = 0
        self._redelivered = self._poisoned = self._rows = 0
        self._batches: Counter[str] = Counter()

    def accept(self, messages: Sequence[Message]) -> None:
        """Messages have left the producer."""
        self._accepted += len(messages)
        self.inside += len(messages)

    def emitted(self, info: BatchInfo) -> None:
        """A batch has left its batcher."""
        self._batches[info.reason] += 1
        self._rows += info.rows

    def redelivered(self, message: Message) -> None:
        """A message is handed out again."""
        message.metadata["redelivered"] = True
        self._redelivered += 1

    def split(self, messages: Iterable[Message]) -> tuple[list[Message], list[Message]]:
        """The messages somebody still waits for, and the others; those past their deadline fail here."""
        now = asyncio.get_running_loop().time()
        alive: list[Message] = []
        dead: list[Message] = []
        for message in messages:
            if message.deadline_s is not None and message.deadline_s <= now and message.status == "pending":
                message.failed(
                    DeadlineExceeded("the deadline passed before the work began", where="pipeline")
                )
            (alive if message.status == "pending" else dead).append(message)
        return alive, dead

    def finish(self, messages: Sequence[Message]) -> None:
        """End `messages`: the unanswered fail, `handle_failed` sees all that failed, each is acknowledged."""
        if not messages:
            return
        failed = []
        for message in messages:
            if message.status == "pending":
                message.failed("the handler gave no answer")
            if message.status != "ok":
                failed.append(message)
        if failed:
            self._tell_failed(failed)
        acknowledge(messages)
        self._succeeded += len(messages) - len(failed)
        self.inside -= len(messages)
        if not self.inside:
            self.changed.set()

    def statistics(self) -> PipelineStatistics:
        """What was written down."""
        return PipelineStatistics(
            accepted=self._accepted,
            succeeded=self._succeeded,
            failed=self._failed,
            expired=self._expired,
            cancelled=self._cancelled,
            redelivered=self._redelivered,
            poisoned=self._poisoned,
            batches=dict(self._batches),
            rows=self._rows,
            in_progress=self.inside,
        )

    def _tell_failed(self, messages: Sequence[Message]) -> None:
        for message in messages:
            late = isinstance(message.error, DeadlineExceeded)
            self._expired += late
            self._poisoned += isinstance(message.error, Poison)
            if message.status == "cancelled" and not late:
                self._cancelled += 1
            else:
                self._failed += 1
        try:
            self._handler.handle_failed(messages)
        except Exception:
            log.exception("handle_failed raised")
