"""The table of jobs in SQLite: what each step of a job's life does to its row. Nothing here waits or locks.

Every row carries two CRC-32: of what was published, and of how it ended. A row that fails one is reported,
put aside (state `damaged`), and never handed out or shown.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, get_args
from zlib import crc32

import msgspec

from triptych.errors import ConflictError, NotFoundError, Overloaded, StorageFull, StoreDamaged
from triptych.serve.brokers.job import ENDED, Job, Record, State

IsSame = Callable[[bytes, bytes], bool]  # whether two bodies ask for the same

STATES = get_args(State)
RESERVED = 0.2  # of the file, for the results of jobs that have been accepted

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    body BLOB NOT NULL,
    body_crc INTEGER NOT NULL,
    state TEXT NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    result BLOB NOT NULL DEFAULT x'',
    reason TEXT NOT NULL DEFAULT '',
    end_crc INTEGER NOT NULL DEFAULT 0,
    submitted_at_s REAL NOT NULL,
    ended_at_s REAL NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, seq);
CREATE INDEX IF NOT EXISTS by_end ON jobs (ended_at_s) WHERE ended_at_s > 0;
CREATE TABLE IF NOT EXISTS store (name TEXT NOT NULL) STRICT;
INSERT INTO store SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM store);
CREATE TABLE IF NOT EXISTS levels (state TEXT PRIMARY KEY, jobs INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS job_came AFTER INSERT ON jobs BEGIN
    INSERT INTO levels VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER IF NOT EXISTS job_changed AFTER UPDATE OF state ON jobs BEGIN
    UPDATE levels SET jobs = jobs - 1 WHERE state = OLD.state;
    INSERT INTO levels VALUES (NEW.state, 1) ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER IF NOT EXISTS job_went AFTER DELETE ON jobs BEGIN
    UPDATE levels SET jobs = jobs - 1 WHERE state = OLD.state;
END;
"""

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row as it is stored."""

    seq: int
    id: str
    key: str | None
    body: bytes
    body_crc: int
    state: str
    deliveries: int
    result: bytes
    reason: str
    end_crc: int
    submitted_at_s: float
    ended_at_s: float

    @property
    def is_whole(self) -> bool:
        """Whether it is what was written."""
        is_end_whole = not self.ended_at_s or self.end_crc == crc_of_end(
            self.id, self.state, self.result, self.reason
        )
        is_begun = self.state in STATES and self.body_crc == crc_of_body(self.id, self.key or "", self.body)
        return is_begun and is_end_whole

    def record(self) -> Record:
        """What callers see."""
        return msgspec.convert({name: getattr(self, name) for name in Record.__struct_fields__}, Record)


COLUMNS = ", ".join(Row._fields)


class HandedOut(NamedTuple):
    """What `hand_out` found: rows to work on, rows that are dead now, rows that were damaged."""

    rows: list[Row]
    dead: list[Row]
    damaged: int


def crc_of_body(id: str, key: str, body: bytes) -> int:
    """Covers what never changes."""
    return crc32(body, crc32(f"{id}\0{key}\0".encode()))


def crc_of_end(id: str, state: str, result: bytes, reason: str) -> int:
    """Covers how a job ended."""
    return crc32(result, crc32(f"{id}\0{state}\0{reason}\0".encode()))


def insert(db: sqlite3.Connection, job: Job, capacity: int, is_same: IsSame) -> tuple[str, bool]:
    """The id that stands for `job`, and whether it is new."""
    first = earlier(db, job, is_same)
    if first is not None:
        return first, False
    waiting = levels(db).get("queued", 0)
    if waiting >= capacity:
        raise Overloaded(f"{waiting} jobs are waiting", where="jobs", remedy="try again later")
    check_room(db)
    db.execute(
        "INSERT INTO jobs (id, key, body, body_crc, state, submitted_at_s) VALUES (?, ?, ?, ?, 'queued', ?)",
        (job.id, job.key or None, job.body, crc_of_body(job.id, job.key, job.body), time.time()),
    )
    return job.id, True


def check_room(db: sqlite3.Connection) -> None:
    """Raise StorageFull where new jobs would take the room that the results of accepted ones need."""
    pages, free, most = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "max_page_count")
    )
    if pages - free > (1 - RESERVED) * most:
        raise StorageFull(
            f"{RESERVED:.0%} of its {most} pages are left, and kept for results",
            where="jobs",
            remedy="wait until results expire, or raise jobs.size_bytes",
        )


def earlier(db: sqlite3.Connection, job: Job, is_same: IsSame) -> str | None:
    """The id of the job that was the first with `job`'s key.

    Raises: ConflictError if it asked for something else.
    """
    found = select(db, "key = ?", (job.key,)) if job.key else []
    if not found:
        return None
    first = check(found[0])
    if not is_same(first.body, job.body):
        raise ConflictError(
            f"`{job.key}` was given to another job ({first.id})",
            where="Idempotency-Key",
            valid="one key for one body",
            remedy="take a new key for a new job",
        )
    return first.id


def read(db: sqlite3.Connection, id: str) -> Record:
    """The job of that id, or NotFoundError, or StoreDamaged."""
    found = select(db, "id = ?", (id,))
    if not found:
        raise NotFoundError(f"there is no job `{id}`", where="job", remedy="ended jobs are forgotten in time")
    return check(found[0])


def check(row: Row) -> Record:
    """A whole row's record."""
    if not row.is_whole:
        raise StoreDamaged(f"the row of job {row.id} is not what was written", where="jobs")
    return row.record()


def select(db: sqlite3.Connection, where: str, values: Iterable[object] = ()) -> list[Row]:
    """The rows for which `where` holds, damaged or not."""
    return [Row(*row) for row in db.execute(f"SELECT {COLUMNS} FROM jobs WHERE {where}", tuple(values))]


def whole(db: sqlite3.Connection, where: str, values: Iterable[object] = ()) -> tuple[list[Row], int]:
    """The whole rows for which `where` holds; how many were not: these are put aside."""
    rows = select(db, where, values)
    good = [row for row in rows if row.is_whole]
    for row in rows:
        if not row.is_whole:
            log.critical("job %s is put aside: its row (%d) is not what was written", row.id, row.seq)
            db.execute("UPDATE jobs SET state = 'damaged' WHERE seq = ?", (row.seq,))
    return good, len(rows) - len(good)


def hand_out(db: sqlite3.Connection, demand: int, max_deliveries: int) -> HandedOut:
    """Take the oldest `demand` queued jobs; one that was out too often already is dead instead."""
    rows, damaged = whole(db, "state = 'queued' ORDER BY seq LIMIT ?", (demand,))
    taken, dead = [], []
    for row in rows:
        if row.deliveries >= max_deliveries:
            end(db, row.id, "dead", reason=f"it was handed out {row.deliveries} times and never ended")
            dead.append(row)
        else:
            taken.append(row._replace(deliveries=row.deliveries + 1))
    db.executemany(
        "UPDATE jobs SET state = 'running', deliveries = ? WHERE seq = ?",
        [(row.deliveries, row.seq) for row in taken],
    )
    return HandedOut(taken, dead, damaged)


def put_back(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    """Queue jobs again that were out."""
    db.executemany(
        "UPDATE jobs SET state = 'queued' WHERE id = ? AND state = 'running'", [(id,) for id in ids]
    )


def put_all_back(db: sqlite3.Connection) -> int:
    """Queue all that were out; returns how many."""
    return db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount


def mark_running(db: sqlite3.Connection, id: str, deliveries: int) -> None:
    """Somebody works on it."""
    db.execute(
        "UPDATE jobs SET state = 'running', deliveries = max(deliveries, ?)"
        " WHERE id = ? AND state IN ('queued', 'running')",
        (deliveries, id),
    )


def end(
    db: sqlite3.Connection, id: str, state: str, result: bytes = b"", reason: str = "", deliveries: int = 0
) -> bool:
    """Write down how a job ended; false if it had ended before."""
    crc = crc_of_end(id, state, result, reason)
    changed = db.execute(
        "UPDATE jobs SET state = ?, result = ?, reason = ?, end_crc = ?, ended_at_s = ?,"
        " deliveries = max(deliveries, ?) WHERE id = ? AND state IN ('queued', 'running')",
        (state, result, reason, crc, time.time(), deliveries, id),
    )
    return changed.rowcount > 0


def cancel(db: sqlite3.Connection, id: str) -> Record:
    """End a job nobody wants, unless it has ended."""
    record = read(db, id)
    if record.state not in ENDED:
        end(db, id, "cancelled")
    return read(db, id)


def requeue(db: sqlite3.Connection, id: str) -> Record:
    """Queue a dead job again."""
    record = read(db, id)
    if record.state != "dead":
        raise ConflictError(f"it is {record.state}", where=f"job {id}", valid="a dead job")
    db.execute(
        "UPDATE jobs SET state = 'queued', deliveries = 0, reason = '', ended_at_s = 0 WHERE id = ?", (id,)
    )
    return read(db, id)


def forget(db: sqlite3.Connection, before_s: float) -> None:
    """Drop what ended before; dead jobs stay."""
    db.execute("DELETE FROM jobs WHERE ended_at_s > 0 AND ended_at_s < ? AND state != 'dead'", (before_s,))


def levels(db: sqlite3.Connection) -> dict[str, int]:
    """How many jobs there are in each state."""
    return dict(db.execute("SELECT state, jobs FROM levels").fetchall())


def name(db: sqlite3.Connection) -> str:
    """The store's own name, given at its making."""
    return str(db.execute("SELECT name FROM store").fetchone()[0])
