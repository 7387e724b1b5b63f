"""`triptych serve`: answer HTTP requests with the models in bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

BROKERS = ("memory", "amqp", "amqps")


def serve(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Folders written by `triptych export`.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0 is one per core.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: section.key=value.")] = None,
    broker: Annotated[
        str | None,
        typer.Option(
            help="amqp://... of the RabbitMQ that shares jobs; `memory` keeps them on this machine."
        ),
    ] = None,
    jobs: Annotated[str | None, typer.Option(help="File that keeps jobs, or `memory`.")] = None,
    log: Annotated[str | None, typer.Option(help="Shape of log lines: text or json.")] = None,
    print_config: Annotated[bool, typer.Option(help="Print every setting as TOML, and exit.")] = False,
) -> None:
    """Serve bundles over HTTP, with supervised worker processes, until SIGTERM."""
    from triptych.errors import ConfigError
    from triptych.serve.settings import read_settings
    from triptych.serve.settings_shown import as_toml

    flags = {
        "workers.count": workers,
        "http.port": port,
        "http.host": host,
        "jobs.path": jobs,
        "jobs.broker": "" if broker == "memory" else broker,
        "log": log,
    }
    overrides = [f"{name}={value}" for name, value in flags.items() if value is not None]
    settings = read_settings(config, [*(set_ or []), *overrides])
    check_broker(settings.jobs.broker, BROKERS)
    if print_config:
        print(as_toml(settings), end="")
        return
    if not bundles:
        raise ConfigError(
            "no bundle given", where="serve", valid="one folder or more", remedy="triptych serve BUNDLE"
        )

    from triptych.serve.root import serve as serve_bundles

    def announce(url: str) -> None:
        names = " ".join(bundle.name for bundle in bundles)
        print(f"triptych: serving {names} at {url}", flush=True)

    raise typer.Exit(serve_bundles(bundles, settings, announce))


def check_broker(url: str, brokers: Sequence[str]) -> None:
    """Refuse an address of a kind that is not in `brokers`.

    Raises: ConfigError; ModuleNotFoundError, so that what is missing is named together with its extra.
    """
    from triptych.errors import ConfigError, nearest

    scheme = url.partition(":")[0] or "memory"
    if scheme not in brokers:
        valid = ", ".join(name if name == "memory" else f"{name}://..." for name in brokers)
        problem = f"got a `{scheme}` address" if url else "got none"
        raise ConfigError(problem, where="--broker", valid=valid, remedy=nearest(scheme, brokers))
    if scheme != "memory":
        check_port(url)
        import aio_pika  # noqa: F401


def check_port(url: str) -> None:
    """Refuse an address that names a port which is none, without showing the password in it."""
    from urllib.parse import urlsplit

    from triptych.errors import ConfigError

    try:
        _ = urlsplit(url).port
    except ValueError as error:
        valid = "amqp://USER:PASSWORD@HOST:PORT/VHOST, with %-codes for other characters"
        raise ConfigError("got an address that cannot be read", where="--broker", valid=valid) from error
