"""One thread, one SQLite connection: whatever waits becomes one transaction, safe before anyone is told.

After each transaction its log is moved into the database file and emptied. So at rest there is no log that
could be cut short, damaged or lost: what was confirmed stands in the file itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from triptych.errors import ConfigError, ServeError, StorageFull, StoreDamaged

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]

GROUP = 512  # operations in one transaction at most
MEMORY = ":memory:"
PAGE_BYTES = 4096
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

log = logging.getLogger(__name__)


class Writer:
    """Runs operations on the database at `path`, in order, many in one transaction.

    Args:
        path: a file, or `:memory:`.
        schema: statements that make the tables, unless they are there.
        size_bytes: what the file may take.

    Raises: StoreDamaged, ConfigError.
    """

    def __init__(self, path: str, schema: str, size_bytes: int) -> None:
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[Operation, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._db = connect(path, schema, size_bytes)
        self._changes = self._db.total_changes
        self._thread = threading.Thread(target=self._run, name=f"store {Path(path).name}", daemon=True)
        self._closing: asyncio.Future[None] = self._loop.create_future()
        self._is_closing = False
        self._thread.start()

    def call(self, operation: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Await what `operation` returns, once it is safe on disk.

        An operation that raises an error of ours must not have written anything: the others of its
        transaction go on. It is done also when nobody awaits it any more.

        Raises: what `operation` raises; StorageFull, StoreDamaged.
        """
        done: asyncio.Future[T] = self._loop.create_future()
        if self._is_closing:
            done.set_exception(ServeError("the store is closed", where=self.path))
        else:
            self._waiting.put((operation, done))
        return done

    async def close(self) -> None:
        """Do what waits, then close the file."""
        if not self._is_closing:
            self._is_closing = True
            self._waiting.put(None)
        await asyncio.shield(self._closing)

    def _run(self) -> None:
        is_open = True
        while is_open:
            group = [self._waiting.get()]
            while len(group) < GROUP and not self._waiting.empty():
                group.append(self._waiting.get())
            is_open = None not in group
            outcomes = self._commit([item for item in group if item is not None])
            if is_open:
                self._tell(tell, outcomes)
        self._db.close()
        self._tell(tell, outcomes)
        self._tell(self._closing.set_result, None)

    def _tell(self, function: Callable[[Any], object], value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, value)
        except RuntimeError:  # the loop has been closed: nobody waits any more
            log.debug("%s: nobody to tell", self.path)

    def _commit(self, group: list[tuple[Operation, asyncio.Future[Any]]]) -> list[Outcome]:
        """Run `group` in one transaction."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [(future, *attempt(operation, self._db)) for operation, future in group]
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            refusal = translate(error, self.path)
            log.error("%s", refusal)
            return [(future, None, refusal) for _, future in group]
        if self._db.total_changes != self._changes:
            self._changes = self._db.total_changes
            self._empty_log()
        return outcomes

    def _empty_log(self) -> None:
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:  # it is safe in the log; the next transaction tries again
            log.error("%s: the log could not be moved into the file: %s", self.path, error)


def attempt(operation: Operation, db: sqlite3.Connection) -> tuple[Any, BaseException | None]:
    """What an operation returns, and what it raised; errors of the database spoil the whole transaction."""
    try:
        return operation(db), None
    except sqlite3.Error:
        raise
    except Exception as error:
        return None, error


def tell(outcomes: list[Outcome]) -> None:
    """Hand each caller who still waits what became of his operation."""
    for future, result, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def connect(path: str, schema: str, size_bytes: int) -> sqlite3.Connection:
    """The open database; a damaged one is moved away, and what is whole of it into a new one.

    Raises: StoreDamaged if nothing of it can be read, ConfigError if the file cannot be opened.
    """
    try:
        try:
            return open_checked(path, schema, size_bytes)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            log.critical("%s is damaged (%s)", path, error)
            rescue(path, schema, size_bytes)
            return open_checked(path, schema, size_bytes)
    except sqlite3.OperationalError as error:
        raise ConfigError(f"cannot be opened ({error})", where=path, remedy="choose another place") from error
    except sqlite3.DatabaseError as error:
        remedy = "move it away, and what its name with -wal and -shm is"
        raise StoreDamaged(f"is no store of jobs ({error})", where=path, remedy=remedy) from error


def open_checked(path: str, schema: str, size_bytes: int) -> sqlite3.Connection:
    """The open database, if it is whole."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
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


def rescue(path: str, schema: str, size_bytes: int) -> None:
    """Move a damaged file away and copy every row that can be read into a new one."""
    aside = f"{path}.damaged-{time.time_ns()}"
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    old = sqlite3.connect(aside, isolation_level=None)
    new = open_checked(path, schema, size_bytes)
    try:
        last: int = old.execute("SELECT max(seq) FROM jobs").fetchone()[0] or 0
        new.execute("BEGIN")
        copied = sum(copy_row(old, new, seq) for seq in range(1, last + 1))
        new.execute("COMMIT")
    except sqlite3.DatabaseError:
        for suffix in ("", "-wal", "-shm"):
            Path(path + suffix).unlink(missing_ok=True)
            if os.path.exists(aside + suffix):
                os.rename(aside + suffix, path + suffix)
        raise
    finally:
        old.close()
        new.close()
    log.critical("%s: %d rows were whole and are kept; the damaged file is now %s", path, copied, aside)


def copy_row(old: sqlite3.Connection, new: sqlite3.Connection, seq: int) -> int:
    """Copy one row; 0 if it is not there or cannot be read."""
    try:
        row = old.execute("SELECT * FROM jobs NOT INDEXED WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            return 0
        return new.execute(f"INSERT INTO jobs VALUES ({', '.join('?' * len(row))})", row).rowcount
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        log.critical("row %d cannot be read: %s", seq, error)
        return 0


def translate(error: sqlite3.Error, path: str) -> ServeError:
    """The error of ours that a database error stands for."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in FULL:
        return StorageFull(
            f"cannot be written ({error})", where=path, remedy="make room on the disk, or raise its limit"
        )
    if code in DAMAGED:
        return StoreDamaged(
            f"is damaged ({error})", where=path, remedy="start again: what is whole of it is kept"
        )
    return ServeError(f"failed ({error})", where=path)
