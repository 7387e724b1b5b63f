"""Which settings a gateway and a worker heed: the others would do nothing, and are refused."""

from __future__ import annotations

from collections.abc import Iterator

from triptych.errors import ConfigError
from triptych.serve.remote.protocol import MAX_BODY_BYTES
from triptych.serve.settings import Section, Settings

OF_WORKERS = (
    "workers.",
    "jobs.broker",
    "queue.capacity",
    "queue.max_deliveries",
    "drain.shutdown_s",
    "log",
)


def check_gateway(settings: Settings) -> None:
    """Refuse what a gateway would not heed, or could not keep.

    Raises: ConfigError.
    """
    _refuse("gateway", [name for name in _changed(settings) if name.startswith("workers.")])
    if settings.limits.body_bytes > MAX_BODY_BYTES:
        raise ConfigError(
            f"got {settings.limits.body_bytes}",
            where="limits.body_bytes",
            valid=f"up to {MAX_BODY_BYTES}: a request is one message through RabbitMQ",
        )


def check_worker(settings: Settings) -> None:
    """Refuse what a worker would not heed.

    Raises: ConfigError.
    """
    _refuse("worker", [name for name in _changed(settings) if not name.startswith(OF_WORKERS)])


def _refuse(role: str, names: list[str]) -> None:
    if names:
        other = "worker" if role == "gateway" else "gateway"
        raise ConfigError(
            f"{', '.join(names)} would do nothing", where=role, remedy=f"set it at the `triptych {other}`"
        )


def _changed(settings: Section, default: Section | None = None, prefix: str = "") -> Iterator[str]:
    """The names of all settings that are not at their default."""
    default = default or type(settings)()
    for name in settings.__struct_fields__:
        value, usual = getattr(settings, name), getattr(default, name)
        if isinstance(value, Section):
            yield from _changed(value, usual, f"{prefix}{name}.")
        elif value != usual:
            yield prefix + name
