"""The fleet: the workers of the present generation, and for the time of a swap those of the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from triptych.errors import ConflictError, TriptychError
from triptych.serve.catalog import Catalog
from triptych.serve.generation import Generation
from triptych.serve.supervise.pool import WorkerPool
from triptych.serve.supervise.spec import Exit, Shutdown
from triptych.serve.work import ProbeWork

SELF_TEST_S = 30.0

log = logging.getLogger("triptych.serve")


class Fleet:
    """A `Child` that is the worker pool of the present generation.

    Args:
        catalog: the models to begin with.
        folders: where they lie, and where a swap looks for what has become of them.
        make_pool: workers, not started, that load the models of a catalog.
        retire_s: how long texts that are being written may keep a former generation alive.
    """

    def __init__(
        self,
        catalog: Catalog,
        folders: Sequence[str],
        make_pool: Callable[[Catalog], WorkerPool],
        *,
        retire_s: float,
    ) -> None:
        self._folders, self._make_pool, self._retire_s = list(folders), make_pool, retire_s
        self._pool = make_pool(catalog)
        self.generation = Generation(catalog, self._pool)
        self._is_swapping = False
        self._retiring: dict[asyncio.Task[None], WorkerPool] = {}

    @property
    def pid(self) -> None:
        """None: its workers have processes."""
        return None

    async def start(self) -> None:
        """Start the workers and return once all are ready."""
        await self._pool.start()

    async def swap(self) -> Generation:
        """Load all bundles anew, beside the workers that serve; once the new ones have proved themselves they
        take over at once, and the old ones finish what they had accepted.

        Raises:
            ConflictError: another swap is under way, a bundle is now damaged, missing or of another name, or
                the new workers could not start or failed their test. What served goes on serving.
        """
        if self._is_swapping:
            raise ConflictError("another one is under way", where="swap", remedy="try again when it is done")
        self._is_swapping = True
        try:
            catalog = await asyncio.to_thread(Catalog.checked, self._folders)
            self._check_names(catalog)
            pool = self._make_pool(catalog)
            try:
                await pool.start()
                await self_test(pool, catalog)
            except BaseException:
                await pool.stop("brutal_kill")
                raise
        except TriptychError as error:
            log.error("swap refused: %s", error)
            raise ConflictError(
                error.problem, where=error.where, valid=error.valid, remedy=error.remedy
            ) from error
        finally:
            self._is_swapping = False
        old, old_pool = self.generation, self._pool
        self.generation, self._pool = Generation(catalog, pool), pool
        log.info("swapped: %s", ", ".join(f"{m.name} {m.version}" for m in catalog.values()))
        retiring = asyncio.create_task(self._retire(old, old_pool), name="retire workers")
        self._retiring[retiring] = old_pool
        retiring.add_done_callback(self._retiring.pop)
        return self.generation

    def _check_names(self, catalog: Catalog) -> None:
        present = self.generation.catalog
        if catalog.keys() != present.keys():
            raise ConflictError(
                f"the bundles are now named {', '.join(catalog)}", where="swap", valid=", ".join(present)
            )

    async def _retire(self, generation: Generation, pool: WorkerPool) -> None:
        """Let former workers finish. If all are gone, none can come back: their version lies there no more.

        Then what they had accepted is refused at once; the batch processors it holds are needed.
        """
        finishing = asyncio.create_task(self._finish(generation, pool))
        lost = asyncio.create_task(pool.lost())
        try:
            await asyncio.wait([finishing, lost], return_when=asyncio.FIRST_COMPLETED)
            if not finishing.done():
                log.warning("the former workers are gone: what they had accepted is refused")
                await pool.stop("brutal_kill")
        finally:
            finishing.cancel()
            lost.cancel()

    async def _finish(self, generation: Generation, pool: WorkerPool) -> None:
        await generation.quiet()
        await pool.stop(self._retire_s)

    async def wait(self) -> Exit:
        """Return once the workers of the present generation were stopped or gave up."""
        while True:
            pool = self._pool
            end = await pool.wait()
            if pool is self._pool:
                return end

    async def stop(self, shutdown: Shutdown = 5.0) -> Exit:
        """Stop every worker, also those of a former generation."""
        for pool in list(self._retiring.values()):
            await pool.stop(shutdown)
        for task in list(self._retiring):
            task.cancel()
        return await self._pool.stop(shutdown)


async def self_test(pool: WorkerPool, catalog: Catalog) -> None:
    """Have every worker compute a real batch of every model.

    Raises: ConflictError if one does not.
    """
    encode = msgspec.msgpack.Encoder().encode
    found = await pool.probe([encode(ProbeWork(name)) for name in catalog], timeout_s=SELF_TEST_S)
    if failed := {slot: state for slot, state in found.items() if state != "ok"}:
        told = ", ".join(f"worker {slot}: {state}" for slot, state in failed.items())
        raise ConflictError(f"the new workers failed their test ({told})", where="swap")
