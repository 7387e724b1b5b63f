"""Which pages of other origins may call: the headers browsers ask for (Fetch standard, section 3.3).

A browser carries out a plain POST of any page without asking first, and only hides its answer. So that such a
page acts on nothing, the server itself refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from triptych.serve.http.exchange import Exchange
from triptych.serve.http.refusal import Headers, Refusal

ANY = "*"
READS = ("GET", "HEAD", "OPTIONS")  # methods that change nothing: a browser hides what they say
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

        Raises: Refusal (403) for what a page of an origin that is not allowed would do here.
        """
        origin = exchange.headers.get(b"origin")
        if origin is None:
            return False
        if self._origins:
            exchange.always = [(b"vary", b"Origin")]
        is_allowed = ANY.encode() in self._origins or origin in self._origins
        if is_allowed:
            exchange.always += [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED),
            ]
        elif exchange.method not in READS and not is_own(origin, exchange.headers):
            raise foreign(origin)
        asks = exchange.method == "OPTIONS" and b"access-control-request-method" in exchange.headers
        if not self._origins or not asks:
            return False
        exchange.reply(204, b"", "text/plain", permission(exchange) if is_allowed else [])
        return True


def is_own(origin: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a page came from the host that its request goes to; by which scheme, a proxy may have changed.

    >>> is_own(b"https://example.org", {b"host": b"example.org"}), is_own(b"null", {b"host": b"null"})
    (True, False)
    """
    _, _, host = origin.partition(b"://")
    return host != b"" and host.lower() == headers.get(b"host", b"").lower()


def foreign(origin: bytes) -> Refusal:
    """403: the page is of another origin."""
    return Refusal(
        403,
        f"got `{origin.decode('latin-1')}`",
        where="Origin",
        valid="none, the server's own, or one of `http.cors_origins`",
        remedy="name it there if its pages may call; have a proxy in front pass `Host` on",
    )


def permission(exchange: Exchange) -> Headers:
    """What an allowed origin may send."""
    asked = exchange.headers.get(b"access-control-request-headers", b"")
    return [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"%d" % LIFETIME_S),
    ]
