"""Tickets: accepted work, who is told what came of it, and until when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from triptych.errors import DeadlineExceeded, ServeError
from triptych.serve.pipeline.message import Message

Outcome = bytes | Exception
RESOLUTION_S = 0.01

log = logging.getLogger(__name__)


class Ticket:
    """Accepted work. Its holder is told once: the answer, what it failed with, or that the deadline passed.

    Attributes:
        end: called once the pipeline has let go of the message, whatever became of it.
        message: the work on its way through the pipeline.
        accepted_at_s, deadline_s: on the monotonic clock.
    """

    __slots__ = ("_deadlines", "_done", "accepted_at_s", "deadline_s", "end", "message")

    message: Message

    def __init__(
        self,
        done: Callable[[Outcome], None],
        deadline_s: float,
        deadlines: Deadlines,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self.end = end
        self._done: Callable[[Outcome], None] | None = done
        self._deadlines = deadlines
        self.deadline_s, self.accepted_at_s = deadline_s, time.monotonic()

    def settle(self, outcome: Outcome) -> None:
        """Tell its holder, unless that has been done."""
        done, self._done = self._done, None
        if done is not None:
            self._deadlines.discard(self)
            done(outcome)

    def cancel(self) -> None:
        """Its holder went away: free its place, tell nobody."""
        self._done = None
        self._deadlines.discard(self)
        self.message.cancel()

    def expire(self) -> None:
        """The deadline passed: free its place and say so."""
        late = DeadlineExceeded("the deadline passed before the answer was there", where="Request-Timeout")
        self.settle(late)
        self.message.cancel(late)


class Deadlines:
    """Every open ticket; one timer for all looks for those that are late, as long as there are any."""

    def __init__(self) -> None:
        self._open: dict[Ticket, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ticket: Ticket) -> None:
        """Watch over `ticket`."""
        self._open[ticket] = None
        if self._timer is None:
            self._look_later()

    def discard(self, ticket: Ticket) -> None:
        """It has come to its end."""
        self._open.pop(ticket, None)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(RESOLUTION_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        for ticket in [ticket for ticket in self._open if ticket.deadline_s <= now_s]:
            ticket.expire()
        if self._open:
            self._look_later()


class TicketAcknowledger:
    """Settles the ticket in `message.ack_ref`; one whose holder raises harms no other."""

    def ack(self, successful: Sequence[Message], failed: Sequence[Message]) -> None:
        """Tell the holders."""
        for message in successful:
            self._settle(message, message.result)
        for message in failed:
            self._settle(message, message.error or ServeError("failed"))

    @staticmethod
    def _settle(message: Message, outcome: Outcome) -> None:
        message.ack_ref.end()
        try:
            message.ack_ref.settle(outcome)
        except Exception:
            log.exception("an answer could not be given")


ACKNOWLEDGER = TicketAcknowledger()
