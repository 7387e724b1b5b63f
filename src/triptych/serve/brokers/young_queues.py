"""Queues made a moment ago: the only ones whose leader RabbitMQ may lose for good when it is killed."""

from __future__ import annotations

import asyncio

SETTLED_S = 5.0  # a queue this old keeps its leader when RabbitMQ is killed; one of half a second may not


class YoungQueues:
    """What a link made and has not seen to last, over all of its connections.

    Attributes:
        leaderless: names of those that were tried and did not answer.
    """

    def __init__(self) -> None:
        self.leaderless: set[str] = set()
        self._made_at_s: dict[str, float] = {}

    def made(self, name: str) -> None:
        """A queue was made."""
        self._made_at_s[name] = asyncio.get_running_loop().time()

    def are_well(self) -> None:
        """The connection they were made over lives: those that are old enough will last."""
        latest_s = asyncio.get_running_loop().time() - SETTLED_S
        self._made_at_s = {name: made_s for name, made_s in self._made_at_s.items() if made_s > latest_s}

    def take(self, name: str) -> bool:
        """Whether a queue is one of them; it is not any more."""
        return self._made_at_s.pop(name, None) is not None
