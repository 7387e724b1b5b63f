"""Which media types a request sends and wants: its Content-Type and Accept fields."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from triptych.serve.http.refusal import Refusal

FORM = "application/x-www-form-urlencoded"


def accepted(headers: Mapping[bytes, bytes], offered: Sequence[str]) -> str:
    """The first media type of `offered` that the client prefers.

    Raises: Refusal (406) if it takes none of them.
    """
    header = headers.get(b"accept")
    if header is None or header == b"*/*":
        return offered[0]
    chosen = choose(header.decode("latin-1").lower(), offered)
    if chosen is None:
        got = header.decode("latin-1")
        raise Refusal(406, f"cannot answer as `{got}`", where="Accept", valid=", ".join(offered))
    return chosen


def sent(headers: Mapping[bytes, bytes], taken: Sequence[str]) -> str:
    """The media type of the body; none at all is the first of `taken`.

    Raises: Refusal (415) for any other than `taken`.
    """
    header = headers.get(b"content-type")
    if header is None:
        return taken[0]
    kind = header.partition(b";")[0].strip().lower().decode("latin-1")
    if kind not in taken:
        valid, remedy = ", ".join(taken), f"send `Content-Type: {taken[0]}`"
        if kind == FORM:
            remedy = f"that is what `curl -d` sends unless told: -H 'Content-Type: {taken[0]}'"
        raise Refusal(415, f"got `{kind}`", where="Content-Type", valid=valid, remedy=remedy)
    return kind


def choose(header: str, offered: Sequence[str]) -> str | None:
    """The offered media type that an Accept header ranks highest.

    >>> choose("image/png;q=0.5, application/*", ("application/json", "image/png"))
    'application/json'
    """
    best, best_quality = None, 0.0
    for part in header.split(","):
        kind, _, parameters = part.strip().partition(";")
        quality = re.search(r"(?:^|;)\s*q=([0-9.]+)\s*(?:;|$)", parameters)
        weight = float(quality[1]) if quality and quality[1].count(".") <= 1 and quality[1] != "." else 1.0
        found = next((offer for offer in offered if covers(kind.strip(), offer)), None)
        if found is not None and weight > best_quality:
            best, best_quality = found, weight
    return best


def covers(kind: str, offer: str) -> bool:
    """Whether `kind` (a media type, `type/*` or `*/*`) takes what is offered."""
    return kind in (offer, "*/*") or kind == offer.partition("/")[0] + "/*"
