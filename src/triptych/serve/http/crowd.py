"""Everybody who is connected: no more than there are descriptors for, so that nobody can take them all."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

KEPT, KEPT_PER_WORKER = 64, 12  # descriptors for workers and those of a swap, for the store, for brokers


class Member(Protocol):
    """What a crowd needs of a connection."""

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is being answered on it."""

    def abort(self) -> None:
        """Cut the client off."""

    def turn_away(self) -> None:
        """Tell a new client that there is no room."""


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """The open connections, oldest first.

    Args:
        most: how many there may be. One more takes the place of the oldest that only waits: for its next
            request, or for the rest of a header. Where none does, it is turned away.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: dict[M, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        return iter(self._members)

    def add(self, member: M) -> None:
        """Let one in."""
        if len(self._members) >= self._most:
            waiting = next((other for other in self._members if other.is_waiting), None)
            if waiting is None:
                member.turn_away()
            else:
                self.discard(waiting)
                waiting.abort()
        self._members[member] = None

    def discard(self, member: M) -> None:
        """One is gone."""
        self._members.pop(member, None)


def take_all_descriptors() -> None:
    """Raise the limit of open files to what this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def room(asked: int, workers: int) -> int:
    """How many connections there may be: those asked for, or what is left of the descriptors.

    >>> room(3, workers=2)
    3
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(asked, limit - KEPT - KEPT_PER_WORKER * workers))
