"""One thread, one SQLite connection: whatever waits becomes one transaction, safe before anyone is told.

After each transaction its log is moved into the database file and emptied. So at rest there is no log that
could be cut short, damaged or lost: what was confirmed stands in the file itself, and the file in its place.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from triptych.errors import BrokerUnavailable, ServeError, StorageFull, StoreDamaged
from triptych.serve.brokers.store_file import MEMORY, WAIT_S, connect, identity, open_checked, put_back

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], Any]
Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]

GROUP = 512  # operations in one transaction at most
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
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
        self._schema, self._size_bytes = schema, size_bytes
        self._db = connect(path, schema, size_bytes)
        self._file = identity(path)
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
        """Run `group` in one transaction; once more if an index had to be made anew."""
        try:
            try:
                outcomes = self._transact(group)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_CORRUPT_INDEX:
                    raise
                log.critical("%s: an index does not fit its rows: made anew from them", self.path)
                self._db.execute("REINDEX")
                outcomes = self._transact(group)
        except sqlite3.Error as error:
            refusal = translate(error, self.path)
            log.error("%s", refusal)
            return [(future, None, refusal) for _, future in group]
        if self._db.total_changes != self._changes:
            self._changes = self._db.total_changes
            self._empty_log()
            if self.path != MEMORY and identity(self.path) != self._file:
                return self._put_back(outcomes)
        return outcomes

    def _transact(self, group: list[tuple[Operation, asyncio.Future[Any]]]) -> list[Outcome]:
        """All of `group`, or nothing and an error of the database."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            outcomes = [(future, *attempt(operation, self._db)) for operation, future in group]
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.rollback()
            raise
        return outcomes

    def _put_back(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Somebody has taken the file away: nothing is safe before it is there again."""
        try:
            put_back(self._db, self.path)
            moved = open_checked(self.path, self._schema, self._size_bytes)
        except (sqlite3.Error, OSError) as error:
            refusal = StoreDamaged(f"was taken away, and cannot be written anew ({error})", where=self.path)
            log.critical("%s", refusal)
            return [(future, None, refusal) for future, _, _ in outcomes]
        self._db, self._file, self._changes = moved, identity(self.path), moved.total_changes
        return outcomes

    def _empty_log(self) -> None:
        """Move the log into the file. While another process reads it, it stays, and the next time does it."""
        try:
            self._db.execute("PRAGMA busy_timeout = 0")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:  # it is safe in the log
            log.error("%s: the log could not be moved into the file: %s", self.path, error)
        finally:
            with suppress(sqlite3.Error):
                self._db.execute(f"PRAGMA busy_timeout = {round(WAIT_S * 1000)}")


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


def translate(error: sqlite3.Error, path: str) -> ServeError:
    """The error of ours that a database error stands for."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in FULL:
        return StorageFull(
            f"cannot be written ({error})", where=path, remedy="make room on the disk, or raise its limit"
        )
    if code in HELD:
        return BrokerUnavailable(f"is held by another process ({error})", where=path)
    if code in DAMAGED:
        return StoreDamaged(
            f"is damaged ({error})", where=path, remedy="start again: what is whole of it is kept"
        )
    return ServeError(f"failed ({error})", where=path)
