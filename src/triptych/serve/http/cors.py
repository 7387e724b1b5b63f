"""Which pages of other origins may call: the headers browsers ask for (Fetch standard, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable

from triptych.serve.http.exchange import Exchange
from triptych.serve.http.refusal import Headers

ANY = "*"
METHODS, LIFETIME_S = b"GET, HEAD, POST", 600
EXPOSED = (
    b"triptych-model, triptych-version, triptych-seed, x-request-id, location, retry-after"
    b", inference-header-content-length"
)


class Cors:
    """The origins that may call; none at all unless told."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = {origin.encode() for origin in origins}

    def admit(self, exchange: Exchange) -> bool:
        """Put on the answer what lets a page of an allowed origin read it.

        Returns: whether the request only asked if it may be made, and has been answered.
        """
        origin = exchange.headers.get(b"origin") if self._origins else None
        if origin is None:
            return False
        exchange.always = [(b"vary", b"Origin")]
        is_allowed = ANY.encode() in self._origins or origin in self._origins
        if is_allowed:
            exchange.always += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED),
            ]
        if exchange.method != "OPTIONS" or b"access-control-request-method" not in exchange.headers:
            return False
        exchange.reply(204, b"", "text/plain", permission(exchange) if is_allowed else [])
        return True


def permission(exchange: Exchange) -> Headers:
    """What an allowed origin may send."""
    asked = exchange.headers.get(b"access-control-request-headers", b"")
    return [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"%d" % LIFETIME_S),
    ]
