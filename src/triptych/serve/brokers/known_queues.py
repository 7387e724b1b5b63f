"""What a link knows of its queues over all of its connections: which it has met, and which are young.

Those made a moment ago are the only ones whose leader RabbitMQ may lose for good when it is killed.
"""

from __future__ import annotations

import asyncio

SETTLED_S = 5.0  # a queue this old keeps its leader when RabbitMQ is killed; one of half a second may not


class KnownQueues:
    """What a link knows of its queues.

    Attributes:
        met: names of those that were there, or were made.
        leaderless: names of those that were tried and did not answer.
    """

    def __init__(self) -> None:
        self.met, self.leaderless = set[str](), set[str]()
        self._made_at_s: dict[str, float] = {}

    def made(self, name: str) -> None:
        """A queue was made."""
        self._made_at_s[name] = asyncio.get_running_loop().time()

    def are_well(self) -> None:
        """The connection they were made over lives: those that are old enough will last."""
        latest_s = asyncio.get_running_loop().time() - SETTLED_S
        self._made_at_s = {name: made_s for name, made_s in self._made_at_s.items() if made_s > latest_s}

    def was_young(self, name: str) -> bool:
        """Whether a queue was made and not seen to last; from now on it counts as old."""
        return self._made_at_s.pop(name, None) is not None
