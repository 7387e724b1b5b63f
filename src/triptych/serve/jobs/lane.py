"""Where the jobs of a server are kept."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from triptych.serve.brokers.broker import Intake, Source
from triptych.serve.brokers.options import BrokerOptions
from triptych.serve.brokers.sqlite import SqliteBroker
from triptych.serve.brokers.store_file import MEMORY
from triptych.serve.jobs.stored import same_request
from triptych.serve.settings import Jobs, Settings

IN_MEMORY = "memory"


def with_place(settings: Settings) -> Settings:
    """`settings` in which `jobs.path` says where: what was asked for, or the default."""
    path = settings.jobs.path
    if not path:
        path = str(state_folder() / f"jobs-{settings.http.port}.db") if settings.http.port else IN_MEMORY
    elif path != IN_MEMORY:
        path = str(Path(path).expanduser().resolve())
    return msgspec.structs.replace(settings, jobs=msgspec.structs.replace(settings.jobs, path=path))


def state_folder() -> Path:
    """The user's folder for what programs remember, as the XDG base directories have it."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "state") / "triptych"


def options_of(settings: Jobs) -> BrokerOptions:
    """The bounds that the brokers keep."""
    return BrokerOptions(
        capacity=settings.capacity,
        in_flight=settings.in_flight,
        lease_s=settings.lease_s,
        max_deliveries=settings.max_deliveries,
        retention_s=settings.retention_s,
        size_bytes=settings.size_bytes,
    )


async def open_store(settings: Jobs) -> SqliteBroker:
    """The embedded broker.

    Raises: ConfigError, StoreDamaged.
    """
    path = MEMORY if settings.path == IN_MEMORY else settings.path
    return await SqliteBroker(path, options_of(settings), same_request).start()


async def open_lane(settings: Jobs) -> tuple[Intake, Source]:
    """Where jobs go in, and where they are taken from: one embedded store, or RabbitMQ and a store beside.

    Does not wait for RabbitMQ: until it is up, jobs are refused, and all else goes on.

    Raises: ConfigError, StoreDamaged.
    """
    store = await open_store(settings)
    if not settings.broker:
        return store, store
    from triptych.serve.brokers.rabbit_intake import RabbitIntake
    from triptych.serve.brokers.rabbit_source import RabbitSource

    options = options_of(settings)
    intake = await RabbitIntake(settings.broker, store, options).start()
    return intake, await RabbitSource(settings.broker, options).start()
