"""The file of a store: opened if it is whole, saved as far as it is not, put back if it was taken away.

A store is written anew beside its place, as `PATH.fresh`; complete and on the disk it is `PATH.whole`, and
only then put where the old one lies. Whenever the process is killed, the next start finds one or the other.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from triptych.errors import ConfigError, StoreDamaged

MEMORY = ":memory:"
PAGE_BYTES = 4096
PARTS = ("", "-wal", "-shm")
FRESH, WHOLE = ".fresh", ".whole"
WAIT_S = 2.0  # for another process that has locked it

log = logging.getLogger(__name__)


def connect(path: str, schema: str, size_bytes: int) -> sqlite3.Connection:
    """The open database; a damaged one is moved away, and what is whole of it into a new one.

    Raises: StoreDamaged if nothing of it can be read, ConfigError if the file cannot be opened.
    """
    try:
        if path != MEMORY and os.path.exists(path + WHOLE):
            log.critical("%s had been written anew, but was not put in its place: it is now", path)
            put_in_place(path)
        try:
            return open_checked(path, schema, size_bytes)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            log.critical("%s is damaged (%s)", path, error)
            rescue(path, schema)
            return open_checked(path, schema, size_bytes)
    except (sqlite3.OperationalError, OSError) as error:
        raise ConfigError(f"cannot be opened ({error})", where=path, remedy="choose another place") from error
    except sqlite3.DatabaseError as error:
        remedy = "move it away, and what its name with -wal and -shm is"
        raise StoreDamaged(f"is no store of jobs ({error})", where=path, remedy=remedy) from error


def open_checked(path: str, schema: str, size_bytes: int) -> sqlite3.Connection:
    """The open database, if it is whole."""
    db = sqlite3.connect(path, WAIT_S, isolation_level=None, check_same_thread=False)
    db.text_factory = lossy_text
    try:
        if path != MEMORY:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA max_page_count = {max(16, size_bytes // PAGE_BYTES)}")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        db.executescript(schema)
    except BaseException:
        db.close()
        raise
    return db


def lossy_text(stored: bytes) -> str:
    """A stored text; one that is damaged is another text, as its row's checksum tells."""
    return stored.decode(errors="replace")


def rescue(path: str, schema: str) -> None:
    """Copy every row of a damaged file that can be read into a new one, which then takes its place."""
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as old,
        closing(sqlite3.connect(clear_fresh(path), isolation_level=None)) as new,
    ):
        last: int = old.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0
        new.executescript(schema)
        new.execute("BEGIN")
        copied = sum(copy_row(old, new, seq) for seq in range(1, last + 1))
        new.execute("COMMIT")
    finish(path)
    aside = put_in_place(path)
    log.critical("%s: %d rows were whole and are kept; the damaged file is now %s", path, copied, aside)


def copy_row(old: sqlite3.Connection, new: sqlite3.Connection, seq: int) -> int:
    """Copy one row; 0 if it is not there, cannot be read or is no row of a store."""
    try:
        row = old.execute("SELECT * FROM jobs NOT INDEXED WHERE seq = ?", (seq,)).fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        log.critical("row %d cannot be read: %s", seq, error)
        return 0
    if row is None:
        return 0
    try:
        return new.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(row))})", row).rowcount
    except (sqlite3.IntegrityError, sqlite3.DataError) as error:
        log.critical("row %d is not what was written: %s", seq, error)
        return 0


def clear_fresh(path: str) -> str:
    """Where to write a store anew; what lies there was never finished, and is removed."""
    fresh = path + FRESH
    for suffix in ("", "-journal"):
        Path(fresh + suffix).unlink(missing_ok=True)
    return fresh


def finish(path: str) -> None:
    """The store that was written anew is complete: it is, too, after a power cut."""
    sync(path + FRESH)
    os.rename(path + FRESH, path + WHOLE)
    sync(os.path.dirname(path) or ".")


def put_in_place(path: str) -> str:
    """Put the store that was written anew at `path`; returns the name of what lay there.

    May be done again, from the start, wherever it was broken off.
    """
    aside = move_aside(path)
    os.rename(path + WHOLE, path)
    sync(os.path.dirname(path) or ".")
    return aside


def move_aside(path: str) -> str:
    """Give whatever lies at `path` another name, which is returned."""
    aside = f"{path}.damaged-{time.time_ns()}"
    for suffix in PARTS:
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside


def identity(path: str) -> tuple[int, int] | None:
    """What tells the file at `path` from any other; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def put_back(db: sqlite3.Connection, path: str) -> None:
    """Write all that `db` holds to `path`, from where its file was removed, or where another one lies now.

    `db` is closed then: in closing it removes logs by their names.

    Raises: sqlite3.Error, OSError.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    db.execute("VACUUM INTO ?", (clear_fresh(path),))
    finish(path)
    db.close()
    put_in_place(path)
    log.critical("%s had been removed or replaced while it was in use: it is written anew", path)


def sync(path: str) -> None:
    """Have a file, or a folder's names, safe on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
