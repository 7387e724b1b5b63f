"""A file that is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(out: Path) -> Iterator[IO[bytes]]:
    """What is written goes to `out`, which takes its name when the last byte is there; what was there before
    stays until then, and for good after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(scratch).chmod(0o644)  # a temporary file is its owner's alone
        os.replace(scratch, out)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
