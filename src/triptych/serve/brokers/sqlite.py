"""The embedded broker: jobs in an SQLite file of one process, or in memory (a store without a file)."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import operator
import os
import time
from functools import partial
from itertools import count
from pathlib import Path

from triptych.errors import ConfigError
from triptych.serve.brokers import table
from triptych.serve.brokers.job import BrokerStatistics, Job, Lease, Record, State
from triptych.serve.brokers.options import BrokerOptions
from triptych.serve.brokers.store_file import MEMORY
from triptych.serve.brokers.writer import Writer

FORGET_EVERY_S = 60.0
AGAIN_S = 1.0  # between two tries to queue a job again

log = logging.getLogger(__name__)


class SqliteBroker:
    """See `Broker`. One process owns the file; opening it in another is an error.

    Args:
        path: the file, made if need be with its folder; `:memory:` keeps nothing beyond this object.
        is_same: whether two bodies of one idempotency key are one job.

    Attributes:
        name: of this store, never changing; known once started.

    Raises: ConfigError if the file cannot be had, StoreDamaged if it is not a whole store.
    """

    def __init__(
        self,
        path: str | Path = MEMORY,
        options: BrokerOptions | None = None,
        is_same: table.IsSame = operator.eq,
    ) -> None:
        self.options, self.path, self._is_same = options or BrokerOptions(), str(path), is_same
        self._lock = None if self.path == MEMORY else lock(Path(self.path))
        self._loop = asyncio.get_running_loop()
        try:
            self._writer = Writer(self.path, table.SCHEMA, self.options.size_bytes)
        except BaseException:
            self._unlock()
            raise
        self.name = ""
        self._tags = count(1)
        self._leases: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        self._returns: dict[str, asyncio.TimerHandle] = {}  # jobs to queue again once that can be written
        self._taking = 0
        self._changed = asyncio.Event()
        self._published = self._settled = self._redelivered = self._dead_lettered = self._damaged = 0
        self._forgetting: asyncio.TimerHandle | None = None
        self._is_closing = False

    async def start(self) -> SqliteBroker:
        """Queue again what an earlier process had taken: it is nobody's now. Begin to forget what is old."""
        self.name = await self._writer.call(table.name)
        found = await self._writer.call(table.put_all_back)
        if found:
            log.warning("%s: %d jobs were under way when it was last closed: queued again", self.path, found)
        self._forget()
        return self

    async def publish(self, job: Job) -> str:
        """See `Broker`."""
        id, is_new = await self._writer.call(
            lambda db: table.insert(db, job, self.options.capacity, self._is_same)
        )
        self._published += is_new
        self._changed.set()
        return id

    async def take(self, demand: int) -> list[Lease]:
        """See `Source`."""
        while True:
            self._changed.clear()
            free = min(demand, self.options.in_flight - len(self._leases) - self._taking)
            leases = await self._lease(free) if free > 0 else []
            if leases:
                return leases
            await self._changed.wait()

    async def ack(self, lease: Lease, result: bytes, *, failed: bool = False) -> bool:
        """See `Source`."""
        if not self._holds(lease):
            return False
        is_end = await self.settle(lease.id, "failed" if failed else "done", result=result)
        self._release(lease)
        return is_end

    async def nack(self, lease: Lease) -> None:
        """See `Source`."""
        if self._holds(lease):
            await self._writer.call(lambda db: table.put_back(db, [lease.id]))
            self._release(lease)

    async def reject(self, lease: Lease, reason: str) -> None:
        """See `Source`."""
        if self._holds(lease):
            await self.settle(lease.id, "dead", reason=reason)
            self._release(lease)

    async def extend(self, lease: Lease) -> bool:
        """See `Source`."""
        if not self._holds(lease):
            return False
        self._hold(lease)
        return True

    async def get(self, id: str) -> Record:
        """See `Broker`."""
        return await self._writer.call(lambda db: table.read(db, id))

    async def earlier(self, job: Job) -> str | None:
        """The id of the job that was the first with `job`'s key.

        Raises: ConflictError if it asked for something else.
        """
        return await self._writer.call(lambda db: table.earlier(db, job, self._is_same))

    async def cancel(self, id: str) -> Record:
        """See `Broker`."""
        return await self._writer.call(lambda db: table.cancel(db, id))

    async def settle(
        self, id: str, state: State, *, result: bytes = b"", reason: str = "", deliveries: int = 0
    ) -> bool:
        """End a job, leased or not; false if it had ended before, or is not known here."""
        is_end = await self._writer.call(lambda db: table.end(db, id, state, result, reason, deliveries))
        self._settled += is_end
        if is_end and state == "dead":
            self._note_dead(id, reason)
        return is_end

    async def mark_running(self, id: str, deliveries: int) -> None:
        """Write down that somebody works on a job."""
        self._redelivered += deliveries > 1
        await self._writer.call(lambda db: table.mark_running(db, id, deliveries))

    async def unfinished(self) -> list[Record]:
        """Every whole job that has not ended, oldest first."""
        return await self._records("state IN ('queued', 'running') ORDER BY seq")

    async def dead_letters(self, limit: int = 100) -> list[Record]:
        """See `Broker`."""
        return await self._records("state = 'dead' ORDER BY ended_at_s LIMIT ?", limit)

    async def requeue(self, id: str) -> Record:
        """See `Broker`."""
        record = await self._writer.call(lambda db: table.requeue(db, id))
        self._changed.set()
        return record

    async def statistics(self) -> BrokerStatistics:
        """See `Broker`."""
        levels = await self._writer.call(table.levels)
        return BrokerStatistics(
            queued=levels.get("queued", 0),
            running=levels.get("running", 0),
            dead=levels.get("dead", 0),
            published=self._published,
            settled=self._settled,
            redelivered=self._redelivered,
            dead_lettered=self._dead_lettered,
            damaged=self._damaged,
        )

    async def close(self) -> None:
        """See `Source`. What was out is queued again; closing twice does no harm."""
        self._is_closing = True
        if self._forgetting is not None:
            self._forgetting.cancel()
        for timer in [*(timer for _, timer in self._leases.values()), *self._returns.values()]:
            timer.cancel()
        if ids := [*self._leases, *self._returns]:
            self._leases.clear()
            self._returns.clear()
            await self._writer.call(lambda db: table.put_back(db, ids))
        await self._writer.close()
        self._unlock()

    async def _records(self, where: str, *values: object) -> list[Record]:
        rows, damaged = await self._writer.call(lambda db: table.whole(db, where, values))
        self._damaged += damaged
        return [row.record() for row in rows]

    async def _lease(self, demand: int) -> list[Lease]:
        """Up to `demand` queued jobs. If the call is cancelled, they are queued again."""
        self._taking += demand
        asked = self._writer.call(lambda db: table.hand_out(db, demand, self.options.max_deliveries))
        try:
            found = await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._undo)
            raise
        finally:
            self._taking -= demand
        self._damaged += found.damaged
        for row in found.dead:
            self._note_dead(row.id, f"handed out {row.deliveries} times")
        if found.dead or found.damaged:
            self._changed.set()  # behind them there may be others
        leases = [Lease(row.id, row.body, row.deliveries, next(self._tags)) for row in found.rows]
        for lease in leases:
            self._hold(lease)
            self._redelivered += lease.deliveries > 1
        return leases

    def _undo(self, asked: asyncio.Future[table.HandedOut]) -> None:
        if not asked.cancelled() and asked.exception() is None:
            for row in asked.result().rows:
                self._put_back(row.id)

    def _put_back(self, id: str) -> None:
        """Queue a job again, without waiting for it: it may take until the store can be written."""
        self._returns.pop(id, None)
        asked = self._writer.call(lambda db: table.put_back(db, [id]))
        asked.add_done_callback(partial(self._is_put_back, id))

    def _is_put_back(self, id: str, asked: asyncio.Future[None]) -> None:
        if asked.cancelled() or asked.exception() is None:
            self._changed.set()
        elif not self._is_closing:
            self._returns[id] = self._loop.call_later(AGAIN_S, self._put_back, id)

    def _hold(self, lease: Lease) -> None:
        """Start the clock of a lease."""
        before = self._leases.get(lease.id)
        if before is not None:
            before[1].cancel()
        timer = self._loop.call_later(self.options.lease_s, self._expire, lease)
        self._leases[lease.id] = (lease.tag, timer)

    def _holds(self, lease: Lease) -> bool:
        return lease.id in self._leases and self._leases[lease.id][0] == lease.tag

    def _release(self, lease: Lease) -> None:
        if self._holds(lease):
            self._leases.pop(lease.id)[1].cancel()
            self._changed.set()

    def _expire(self, lease: Lease) -> None:
        log.warning("job %s was not settled within %g s: queued again", lease.id, self.options.lease_s)
        self._release(lease)
        self._put_back(lease.id)

    def _note_dead(self, id: str, reason: str) -> None:
        self._dead_lettered += 1
        log.error("job %s is a dead letter: %s", id, reason)

    def _forget(self) -> None:
        """Drop what ended long ago: its room is needed also while nothing comes, or can come."""
        before_s = time.time() - self.options.retention_s
        asked = self._writer.call(lambda db: table.forget(db, before_s))
        asked.add_done_callback(self._forget_later)

    def _forget_later(self, asked: asyncio.Future[None]) -> None:
        """Forget again in a while, whatever became of it this time."""
        if not asked.cancelled() and (error := asked.exception()) is not None:
            log.warning("%s: what ended long ago could not be dropped yet: %s", self.path, error)
        if not self._is_closing:
            pause_s = min(FORGET_EVERY_S, self.options.retention_s)
            self._forgetting = self._loop.call_later(pause_s, self._forget)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock(path: Path) -> int:
    """Own the file at `path`: the descriptor to keep open. The kernel lets go of it with the process.

    Raises: ConfigError if another process has it, or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot be written ({os.strerror(error.errno or 0).lower()})",
            where=str(path),
            remedy="choose another --jobs",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            "another server has this store of jobs",
            where=str(path),
            remedy="give each its own --jobs, or share work through --broker",
        ) from error
    return descriptor
