"""The way in for calls, and how it is closed."""

from __future__ import annotations

import asyncio

from triptych.errors import Draining
from triptych.serve.http.app import App
from triptych.serve.http.exchange import Exchange

QUIET_S, LONGEST_S = 0.1, 1.0


class Door:
    """Lets calls in until it is closed, and from then on refuses them.

    Stopped at once, the library would end with `CANCELLED` what has reached the process and not yet this
    code, and what comes just then (grpc/grpc#41785): no client would try again. So whoever comes late is told
    first that the server is `UNAVAILABLE`, and the library is stopped when nobody comes any more.

    Attributes:
        app: answers the calls.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._is_closed, self._refused = False, 0

    def respond(self, exchange: Exchange) -> None:
        """Answer, now or later; never raises."""
        if not self._is_closed:
            self.app.respond(exchange)
            return
        self._refused += 1
        self.app.gateway.metrics.in_progress += 1
        exchange.refuse(Draining("the server is stopping", where="server"))

    async def close(self) -> None:
        """Refuse from now on, and return when nobody has come for a moment, or after `LONGEST_S`."""
        self._is_closed = True
        for _ in range(round(LONGEST_S / QUIET_S)):
            before = self._refused
            await asyncio.sleep(QUIET_S)
            if self._refused == before:
                return
