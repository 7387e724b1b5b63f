"""Whether workers will be able to compute as asked for, found out before any of them starts.

It is a process of its own, because the root imports no engine.
"""

from __future__ import annotations

import os

import msgspec

from triptych.errors import TriptychError
from triptych.infer import load
from triptych.serve.settings import Workers
from triptych.serve.supervise.failure import Failure


class TrialCall(msgspec.Struct, frozen=True):
    """What the root tells: bundle folders, the workers' settings, and a descriptor for a `Failure`."""

    bundles: list[str]
    workers: Workers
    answer: int


def main(call: object) -> None:
    """Load every bundle as a worker will; write why one cannot be, or nothing."""
    told = msgspec.convert(call, TrialCall)
    wanted = told.workers
    try:
        for folder in told.bundles:
            load(
                folder,
                engine=wanted.engine,
                threads=wanted.threads,
                precision=wanted.precision,
                cache_precision=wanted.cache_precision,
                operators=wanted.operators,
            ).close()
    except TriptychError as error:
        os.write(told.answer, msgspec.msgpack.encode(Failure.of(error)))
