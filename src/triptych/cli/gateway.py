"""`triptych gateway`: answer HTTP requests with the workers that a RabbitMQ leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triptych.cli.serve import check_broker

AMQP = ("amqp", "amqps")


def gateway(
    broker: Annotated[
        str, typer.Option(help="amqp://USER:PASSWORD@HOST/VHOST of the RabbitMQ.", envvar="TRIPTYCH_BROKER")
    ] = "",
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: section.key=value.")] = None,
    jobs: Annotated[str | None, typer.Option(help="File that keeps jobs, or `memory`.")] = None,
    log: Annotated[str | None, typer.Option(help="Shape of log lines: text or json.")] = None,
) -> None:
    """Answer HTTP with the models of every `triptych worker` at the same RabbitMQ, until SIGTERM."""
    from triptych.serve.settings import read_settings

    flags = {
        "http.port": port,
        "http.host": host,
        "jobs.path": jobs,
        "jobs.broker": broker or None,
        "log": log,
    }
    overrides = [f"{name}={value}" for name, value in flags.items() if value is not None]
    settings = read_settings(config, [*(set_ or []), *overrides])
    check_broker(settings.jobs.broker, AMQP)

    from triptych.serve.remote.roles import check_gateway
    from triptych.serve.root import serve

    check_gateway(settings)

    def announce(url: str) -> None:
        print(f"triptych: a gateway at {url}", flush=True)

    raise typer.Exit(serve([], settings, announce))
