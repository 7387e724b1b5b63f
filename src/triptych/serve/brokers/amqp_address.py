"""The address of a RabbitMQ: checked before anything tries to connect, and as it may be shown."""

from __future__ import annotations

import aio_pika

from triptych.errors import ConfigError


def shown(url: str) -> str:
    """The address without its password and its settings.

    Raises: ConfigError when `url` is none; it is not repeated, since a password may be anywhere in it.
    """
    try:
        address = aio_pika.connection.make_url(url)
        is_whole = address.host and "@" not in address.raw_path + address.raw_query_string
        problem = "" if is_whole and not address.raw_fragment else "a part of it is not where it belongs"
    except ValueError as error:
        problem = type(error).__name__
    if problem:
        raise ConfigError(
            f"it is no address of a RabbitMQ ({problem})",
            where="--broker",
            valid="amqp://USER:PASSWORD@HOST:PORT/VHOST",
            remedy="write / ? # @ : and % in a user's name, a password or a vhost as %2F %3F %23 %40 %3A %25",
        )
    return str(address.with_password(None).with_query(None))
