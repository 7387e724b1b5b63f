"""Whether bundles can be computed as settings ask, tried in a process of its own before any worker starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import msgspec

from triptych.errors import ServeError
from triptych.serve.settings import Settings
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.process import spawn


async def try_way(bundles: Sequence[str], settings: Settings, stop: asyncio.Event) -> bool:
    """Load the bundles in a process of its own, unless they are computed in the way that cannot fail.

    What engine and precision refuse is then one error, and what they have to calibrate is done once.

    Returns: whether they may be served so; False if `stop` was set first.

    Raises: TriptychError, as `triptych.load` does.
    """
    workers = settings.workers
    is_plain = (workers.precision, workers.cache_precision, workers.operators) == ("f32", "f32", "any")
    if not bundles or (workers.engine != "openvino" and is_plain):
        return True
    read, write = os.pipe()
    call = {"bundles": list(bundles), "workers": msgspec.to_builtins(workers), "answer": write}
    trial = await spawn("triptych.serve.trial:main", call, name="trial", pass_fds=[write], log=settings.log)
    os.close(write)
    stopping = asyncio.create_task(stop.wait())
    waiting: list[asyncio.Future[Any]] = [trial.exited, stopping]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        await trial.stop("brutal_kill")
    stopping.cancel()
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    if answer:
        raise msgspec.msgpack.decode(answer, type=Failure).to_error()
    end = trial.exited.result()
    if not end.normal and not stop.is_set():
        raise ServeError(
            f"the bundles could not be tried ({end.reason})",
            where="workers",
            remedy="the lines above say why",
        )
    return not stop.is_set()
