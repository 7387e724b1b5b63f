"""A generation: one state of the bundles, and the workers that have loaded it. A swap begins the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol

from triptych.serve.catalog import Catalog
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.pool import WorkerInfo
from triptych.serve.supervise.stream import PieceStream


class Pool(Protocol):
    """What the gateway needs of `WorkerPool`."""

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> list[bytes | Failure]:
        """One answer per payload."""

    def stream(self, payload: bytes, *, deadline_s: float | None = None) -> PieceStream:
        """The pieces of one answer."""

    async def idle(self) -> None:
        """Return once a worker has room."""

    async def probe(self, payloads: list[bytes], *, timeout_s: float = 1.0) -> dict[int, str]:
        """Slot -> what became of a real batch in its worker."""

    def workers(self) -> list[WorkerInfo]:
        """Every slot's present worker."""


class Generation:
    """What a request is accepted by is what answers it: its models are these, and so are its workers.

    Attributes:
        catalog: the models.
        pool: the workers that have loaded them.
        open: accepted requests that have not come to their end.
    """

    def __init__(self, catalog: Catalog, pool: Pool) -> None:
        self.catalog, self.pool = catalog, pool
        self.open = 0
        self._quiet = asyncio.Event()

    def key(self, key: Hashable) -> tuple[Generation, Hashable]:
        """The batch key of its requests: those of two generations never share a batch."""
        return self, key

    def enter(self) -> None:
        """A request is accepted."""
        self.open += 1

    def leave(self) -> None:
        """A request has come to its end."""
        self.open -= 1
        if not self.open:
            self._quiet.set()

    async def quiet(self) -> None:
        """Return once no accepted request is open."""
        while self.open:
            self._quiet.clear()
            await self._quiet.wait()
