"""A client's connection."""

from __future__ import annotations

import http.client
from typing import Any


class Connection(http.client.HTTPConnection):
    """One whose requests leave in one piece: a busy client may be interrupted between a header and the body
    behind it for longer than a short deadline.
    """

    _held: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request."""
        held: list[bytes] = []
        self._held = held
        try:
            super().request(*args, **kwargs)
        finally:
            self._held = None
        super().send(b"".join(held))

    def send(self, data: Any) -> None:
        """Send bytes; those of a request, once all of it is there."""
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)
