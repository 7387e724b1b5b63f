"""The handler: the callbacks that give a pipeline its meaning."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import msgspec

from triptych.serve.pipeline.message import Message

EmitReason = Literal["size", "timeout", "idle", "drain"]


class BatchInfo(msgspec.Struct, frozen=True):
    """What a batch is: its batcher, key, rows and messages, and why it was emitted."""

    batcher: str
    batch_key: Hashable
    rows: int
    size: int
    reason: EmitReason


class Handler:
    """Override what you need. A callback that raises fails its messages, never its stage."""

    def partition_by(self, message: Message) -> Hashable:
        """Override this to keep messages of one key in their order: one processor gets all of them.

        Returns: the key; None for a message that any processor may have.
        """
        return None

    def prepare_messages(self, messages: Sequence[Message]) -> None:
        """Called with every chunk of messages before `handle_message`, for work that is cheaper in bulk."""

    def handle_message(self, message: Message) -> object:
        """Called with each message: choose batcher and key, check the data. May be a coroutine function."""

    async def handle_batch(self, batcher: str, messages: Sequence[Message], info: BatchInfo) -> None:
        """Give each message its `put_result` or `failed`; a message left pending fails.

        An exception makes the pipeline try the messages one by one, `WorkerDied` in halves. So a message may
        come again (`metadata["redelivered"]`), and its data must not be changed here.
        """

    def handle_failed(self, messages: Sequence[Message]) -> None:
        """Called with failed messages before they are acknowledged; may change their error or result."""

    async def capacity(self, batcher: str) -> None:
        """Return once a batch could be computed at once; until then the next batch can still fill."""
