"""The runner of jobs, with a source that cannot always give."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from triptych.errors import ServeError, StorageFull, StoreDamaged
from triptych.serve.jobs import runner
from triptych.serve.jobs.runner import JobRunner
from triptych.serve.settings import Jobs


class FaultySource:
    """Cannot note that a job was taken, twice; then has none."""

    def __init__(self, error: ServeError) -> None:
        self.error = error
        self.asked = 0
        self.went_on = asyncio.Event()

    async def take(self, demand: int) -> list[Any]:
        self.asked += 1
        if self.asked < 3:
            raise self.error
        self.went_on.set()
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", [StorageFull, StoreDamaged, ServeError])
def test_a_store_that_cannot_be_used_does_not_end_the_runner(
    monkeypatch: pytest.MonkeyPatch, kind: type[ServeError]
) -> None:
    monkeypatch.setattr(runner, "AWAY_S", 0.0)

    async def live() -> int:
        source = FaultySource(kind("not now", where="jobs"))
        made = JobRunner(cast(Any, SimpleNamespace(jobs=None)), cast(Any, source), Jobs())
        running = asyncio.create_task(made.run())
        await asyncio.wait_for(source.went_on.wait(), 10)
        running.cancel()
        await asyncio.wait([running])
        return source.asked

    assert asyncio.run(live()) == 3
