"""The acknowledger: told exactly once per message whether it succeeded or failed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from triptych.errors import ServeError
from triptych.serve.pipeline.message import Message

log = logging.getLogger(__name__)


class Acknowledger(Protocol):
    """Tells the source of messages what became of them."""

    def ack(self, successful: Sequence[Message], failed: Sequence[Message]) -> None:
        """Called once per message; must not block. Cancelled messages come as failed."""


class FutureAcknowledger:
    """Answers callers who wait for the `asyncio.Future` in `message.ack_ref`."""

    def ack(self, successful: Sequence[Message], failed: Sequence[Message]) -> None:
        """Set each future to its message's result or error, unless its caller is gone."""
        for message in successful:
            if not message.ack_ref.done():
                message.ack_ref.set_result(message.result)
        for message in failed:
            if not message.ack_ref.done():
                message.ack_ref.set_exception(message.error or ServeError("failed"))


class NoopAcknowledger:
    """Tells nobody."""

    def ack(self, successful: Sequence[Message], failed: Sequence[Message]) -> None:
        """Do nothing."""


def acknowledge(messages: Iterable[Message]) -> None:
    """Tell each message's acknowledger, once; a raising acknowledger is logged and harms nobody else."""
    told: dict[int, tuple[Acknowledger, list[Message], list[Message]]] = {}
    for message in messages:
        if message.acknowledged:
            continue
        message.acknowledged = True
        key = id(message.acknowledger)
        if key not in told:
            told[key] = message.acknowledger, [], []
        _, successful, failed = told[key]
        (successful if message.status == "ok" else failed).append(message)
    for acknowledger, successful, failed in told.values():
        try:
            acknowledger.ack(successful, failed)
        except Exception:
            log.exception("acknowledger %s raised", type(acknowledger).__name__)
