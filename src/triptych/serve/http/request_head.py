"""The head of a request: its path, what is no HTTP/1.1, and how it reads without an offer to upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

import httptools

VERSIONS = ("1.0", "1.1")
UPGRADE, HOST, CODING = b"upgrade", b"host", b"transfer-encoding"


def path_of(target: bytes) -> str:
    """The decoded path of a request's target, without its query.

    >>> path_of(b"/a%20b?c=d"), path_of(b"http://host/a"), path_of(b"http://host")
    ('/a b', '/a', '/')
    """
    path = (httptools.parse_url(target).path or b"/").decode("ascii")
    return unquote(path) if "%" in path else path


def flaw_of(version: str, headers: Mapping[bytes, bytes]) -> str:
    """What RFC 9112 has refused, and llhttp lets pass; empty if there is nothing.

    >>> flaw_of("1.1", {b"host": b"x", b"transfer-encoding": b"gzip, chunked"})
    'has a transfer coding other than `chunked`'
    """
    if version not in VERSIONS:
        return f"is HTTP/{version}"
    if HOST not in headers and version != "1.0":
        return "has no Host"
    coding = headers.get(CODING)
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        return "has a transfer coding other than `chunked`"
    return ""


def without_offer(method: bytes, target: bytes, version: str, headers: Mapping[bytes, bytes]) -> bytes:
    """The head once more, as a client writes it who offers no other protocol.

    >>> without_offer(b"GET", b"/", "1.1", {b"host": b"x", b"upgrade": b"h2c"})
    b'GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n'
    """
    lines = [b"%b: %b\r\n" % header for header in headers.items() if header[0] != UPGRADE]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), b"".join(lines))
