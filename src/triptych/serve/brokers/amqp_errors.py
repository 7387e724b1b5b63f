"""What goes wrong over a connection to RabbitMQ, and what aiormq cancels because it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiormq.exceptions import AMQPError, ChannelInvalidStateError

ERRORS = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, asyncio.InvalidStateError)


class Blocked(AMQPError):
    """RabbitMQ is there, and takes no messages."""

    def __init__(self) -> None:
        super().__init__("it blocks publishers: it is out of memory or disk (connection.blocked)")


def was_asked_to_stop() -> bool:
    """Whether the task that runs is being cancelled; aiormq cancels what waits on a channel that closes."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextmanager
def closing_is_an_error() -> Iterator[None]:
    """What aiormq cancels because a channel closes has failed: whoever waits for it goes on."""
    try:
        yield
    except asyncio.CancelledError as error:
        if was_asked_to_stop():
            raise
        raise ChannelInvalidStateError("the connection ended meanwhile") from error


def why(end: asyncio.Future[object]) -> str:
    """What ended it."""
    if end.cancelled():
        return "closed"
    error = end.exception()
    return str(end.result()) if error is None else f"{type(error).__name__}: {error}"
