"""Sabotage from outside the product: patches the model, the channel and the batcher of this one process.

Python imports `sitecustomize` by itself when this folder is on PYTHONPATH. It does nothing but in the node
and in the workers of a server.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

CHILD = "triptych.serve.supervise.child"
WORKER, NODE = "triptych.serve.supervise.worker:serve", "triptych.serve.node:main"


def sabotage_worker() -> None:
    """Seeds of `faults.Fault` do harm in this worker."""
    from triptych.serve.chaos.faults import CRASH_AT_START, MODE_VARIABLE, SLOW_ROW_S, Fault, is_slow

    if os.environ.get(MODE_VARIABLE) == CRASH_AT_START:
        raise SystemExit("sabotage: this worker cannot start")
    from triptych.infer.engine import Engine
    from triptych.serve import models
    from triptych.serve.supervise.channel import BlockingChannel, pack_header

    sample_rows, collate, send = Engine.sample_rows, models.sample, BlockingChannel.send
    tear = False

    def sabotaged_rows(self: Engine, seeds: Any, indices: Any, *more: Any, **options: Any) -> Any:
        nonlocal tear
        here = {int(seed) for seed in seeds}
        if Fault.ABORT in here:
            os.abort()
        if Fault.RAISE in here:
            raise RuntimeError("sabotage: the model raises")
        while Fault.LOOP in here:
            pass
        if Fault.HOG in here:
            hog()
        tear = tear or (Fault.TORN in here and disarm(Fault.TORN))
        time.sleep(SLOW_ROW_S * sum(is_slow(int(seed)) for seed in seeds))
        return sample_rows(self, seeds, indices, *more, **options)

    def sabotaged_collate(engine: Any, works: Any) -> Any:
        if any(work.seed == Fault.COLLATE for work in works):
            raise RuntimeError("sabotage: the batch cannot be put together")
        return collate(engine, works)

    def sabotaged_send(self: BlockingChannel, kind: int, id: int, body: bytes = b"") -> None:
        if tear:
            frame = pack_header(kind, id, body) + body
            self._socket.sendall(frame[: len(frame) // 2])
            os.kill(os.getpid(), 9)
        send(self, kind, id, body)

    Engine.sample_rows = sabotaged_rows  # type: ignore[method-assign]
    models.sample = sabotaged_collate
    BlockingChannel.send = sabotaged_send  # type: ignore[method-assign]


def sabotage_node() -> None:
    """The batcher raises once for an armed seed; the wall clock jumps by an hour with each look at it."""
    from triptych.serve.chaos.faults import JUMPING_CLOCK, MODE_VARIABLE, Fault
    from triptych.serve.pipeline.batcher import Batcher

    gather = Batcher._gather
    mark = int(Fault.GATHER).to_bytes(4, "big")

    def sabotaged_gather(self: Batcher, message: Any) -> None:
        if isinstance(message.data, bytes) and mark in message.data and disarm(Fault.GATHER):
            raise RuntimeError("sabotage: the batcher raises")
        gather(self, message)

    Batcher._gather = sabotaged_gather  # type: ignore[method-assign]
    if os.environ.get(MODE_VARIABLE) == JUMPING_CLOCK:
        time.time = jumping(time.time)


def disarm(fault: Any) -> bool:
    """Whether the fault was armed; it is not any more."""
    from triptych.serve.chaos.faults import FOLDER_VARIABLE

    try:
        Path(os.environ[FOLDER_VARIABLE], fault.name).unlink()
    except FileNotFoundError:
        return False
    return True


def hog() -> None:
    """Take memory until there is none."""
    held = []
    while True:
        held.append(bytearray(64 * 2**20))


def jumping(clock: Any) -> Any:
    """`clock`, an hour ahead or behind at every second call."""
    offset_s = 3600.0

    def jump() -> float:
        nonlocal offset_s
        offset_s = -offset_s
        return float(clock()) + offset_s

    return jump


if CHILD in sys.orig_argv:
    if WORKER in sys.orig_argv:
        sabotage_worker()
    elif NODE in sys.orig_argv:
        sabotage_node()
