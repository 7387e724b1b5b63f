"""SHA-256 of files, and the digest a manifest carries of itself.

A manifest ends with its digest: 64 lower-case hex digits and then the four bytes `"\\n}\\n`. The digest is
the SHA-256 of all the other bytes of the file, in order. So every byte of a bundle is covered, and any
language can check it without a JSON writer of its own.
"""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

TAIL = b'"\n}\n'
HEX_DIGITS = 64


def sha256(data: bytes | memoryview | mmap.mmap) -> str:
    """SHA-256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(unsealed: bytes) -> bytes:
    """Put the digest into manifest bytes that end with an empty one.

    >>> split(seal(b'{\\n  "digest": "' + TAIL))[0][:8]
    b'e04ea728'
    """
    if not unsealed.endswith(b'"digest": "' + TAIL):
        raise ValueError('a manifest to seal ends with an empty "digest"')
    head = unsealed[: -len(TAIL)]
    return head + sha256(unsealed).encode() + TAIL


def split(sealed: bytes) -> tuple[bytes, bytes]:
    """The digest that sealed manifest bytes carry, and the bytes it is the digest of."""
    at = len(sealed) - len(TAIL) - HEX_DIGITS
    return sealed[at : at + HEX_DIGITS] if at >= 0 else b"", sealed[: max(at, 0)] + sealed[at + HEX_DIGITS :]


def is_intact(sealed: bytes) -> bool:
    """Whether sealed manifest bytes carry their own digest."""
    carried, covered = split(sealed)
    return carried == sha256(covered).encode()
