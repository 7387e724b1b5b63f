"""Does the jobs: takes as many as it may have under way, and has the ordinary routes answer them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time

from triptych.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    Draining,
    NotFoundError,
    Overloaded,
    Poison,
    ServeError,
    SupervisorFailed,
)
from triptych.serve.brokers.broker import Source
from triptych.serve.brokers.job import Lease
from triptych.serve.gateway import Gateway
from triptych.serve.http.app import ROUTES
from triptych.serve.http.exchange import Exchange, Nobody
from triptych.serve.http.refusal import Headers
from triptych.serve.http.request_body import RequestBody, Room
from triptych.serve.http.routing import Router
from triptych.serve.jobs.failures import encode_failure
from triptych.serve.jobs.results import StoredResult
from triptych.serve.jobs.stored import StoredJob, settle_completion
from triptych.serve.settings import Jobs

AGAIN = (BrokerUnavailable, Overloaded, SupervisorFailed)  # the node is at fault, not the job
PAUSE_S, AWAY_S = 0.2, 1.0

log = logging.getLogger(__name__)


class JobExchange(Exchange):
    """A request nobody waits for: its answer goes into `answered`."""

    __slots__ = ("_accepted_by", "answered")

    def __init__(self, gateway: Gateway, job: StoredJob, timeout_s: float) -> None:
        headers = {
            b"accept": job.accept.encode(),
            b"content-type": b"application/json",
            b"content-length": b"%d" % len(job.content),
        }
        super().__init__(gateway, Nobody(), "POST", job.path, headers)
        limit_bytes = len(job.content)  # it was within limits when it was handed in
        self._body = RequestBody(headers, limit_bytes, Room(limit_bytes))
        self.feed(job.content)
        self.feed_end()
        self.deadline_s = self.arrived_at_s + timeout_s
        self._accepted_by = job.version
        self.answered: asyncio.Future[StoredResult] = asyncio.get_running_loop().create_future()

    def about(self, model: str) -> None:
        """Note the model; a job's deadline is that of jobs."""
        self.model = model

    def reply(self, status: int, body: bytes, content_type: str, headers: Headers) -> None:
        """Keep the answer, and whose it is."""
        if not self.answered.done():
            version = dict(headers).get(b"triptych-version", b"").decode() or self._accepted_by
            self.answered.set_result(StoredResult(version, body))

    def refuse(self, error: Exception) -> None:
        """Keep the error."""
        if not self.answered.done():
            self.answered.set_exception(error)


class JobRunner:
    """Takes jobs from `source` while fewer than `settings.in_flight` are under way."""

    def __init__(self, gateway: Gateway, source: Source, settings: Jobs) -> None:
        self._gateway, self._source, self._settings = gateway, source, settings
        self._router = Router(ROUTES)
        self._running: dict[asyncio.Task[None], Lease] = {}
        self._has_room = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled; then finish what was taken, and give the rest back."""
        keeping = asyncio.create_task(self._keep_leases())
        try:
            while True:
                while len(self._running) >= self._settings.in_flight:
                    self._has_room.clear()
                    await self._has_room.wait()
                for lease in await self._take(self._settings.in_flight - len(self._running)):
                    task = asyncio.create_task(self._do(lease), name=f"job {lease.id}")
                    self._running[task] = lease
                    task.add_done_callback(self._ended)
        finally:
            if self._running:
                await asyncio.wait(set(self._running))
            keeping.cancel()
            await self._source.close()
            if self._gateway.jobs is not None:  # of an embedded broker, the same
                await self._gateway.jobs.close()

    async def _take(self, demand: int) -> list[Lease]:
        """Jobs to do; none, after a pause, while where they are kept cannot note that they were taken."""
        try:
            return await self._source.take(demand)
        except ServeError as error:
            log.error("no job can be taken: %s", error)
            await asyncio.sleep(AWAY_S)
            return []

    async def _do(self, lease: Lease) -> None:
        """One job, from its lease to its end."""
        try:
            await self._answer(lease)
        except ServeError as error:
            log.error("job %s: its end could not be written down, it will run again: %s", lease.id, error)

    async def _answer(self, lease: Lease) -> None:
        if lease.deliveries > 1:
            log.warning("job %s runs again: delivery %d", lease.id, lease.deliveries)
        try:
            job = StoredJob.decode(lease.body)
            result = await self._compute(job)
        except Draining:
            await self._source.nack(lease)
        except Poison as error:
            await self._source.reject(lease, str(error))
        except Exception as error:
            await self._source.ack(lease, encode_failure(error), failed=True)
        else:
            if job.kind == "completion":
                content = settle_completion(result.content, lease.id)
                result = StoredResult(result.version, content)
            await self._source.ack(lease, result.encode())

    async def _compute(self, job: StoredJob) -> StoredResult:
        """The answer of the job's route; waits while the queue of the pipeline is full, or while nobody has
        the model, which was there when the job was accepted.
        """
        until_s, is_missed = time.monotonic() + self._settings.timeout_s, False
        while True:
            exchange = JobExchange(self._gateway, job, until_s - time.monotonic())
            route, parts = self._router.find("POST", job.path)
            try:
                answering = route.answer(exchange, **parts)
                if inspect.isawaitable(answering):
                    await answering
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._settings.timeout_s):
                    return await exchange.answered
            except TimeoutError as error:
                raise DeadlineExceeded("the job took too long", where="jobs.timeout_s") from error
            except AGAIN:
                if time.monotonic() > until_s:
                    raise
                await asyncio.sleep(PAUSE_S)
            except NotFoundError:
                if job.model in self._gateway.catalog or time.monotonic() > until_s:
                    raise
                if not is_missed:
                    log.warning("a job waits: nobody has `%s` now", job.model)
                is_missed = True
                await asyncio.sleep(AWAY_S)

    async def _keep_leases(self) -> None:
        """Extend what is under way, for as long as it is."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            for task, lease in list(self._running.items()):
                if not await self._source.extend(lease) and task in self._running:
                    log.warning("job %s: its lease was lost", lease.id)

    def _ended(self, task: asyncio.Task[None]) -> None:
        lease = self._running.pop(task)
        self._has_room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("job %s: unexpected %s", lease.id, type(error).__name__, exc_info=error)
