"""`triptych worker`: compute what gateways ask for through RabbitMQ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from triptych.cli.gateway import AMQP
from triptych.cli.serve import check_broker


def worker(
    bundles: Annotated[
        list[Path] | None, typer.Argument(help="Folders written by `triptych export`.")
    ] = None,
    broker: Annotated[
        str, typer.Option(help="amqp://USER:PASSWORD@HOST/VHOST of the RabbitMQ.", envvar="TRIPTYCH_BROKER")
    ] = "",
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0 is one per core.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting: section.key=value.")] = None,
    log: Annotated[str | None, typer.Option(help="Shape of log lines: text or json.")] = None,
) -> None:
    """Compute with supervised worker processes for every gateway at the same RabbitMQ, until SIGTERM."""
    from triptych.errors import ConfigError
    from triptych.serve.settings import read_settings

    flags = {"workers.count": workers, "jobs.broker": broker or None, "log": log}
    overrides = [f"{name}={value}" for name, value in flags.items() if value is not None]
    settings = read_settings(config, [*(set_ or []), *overrides])
    check_broker(settings.jobs.broker, AMQP)
    if not bundles:
        raise ConfigError(
            "no bundle given",
            where="worker",
            valid="one folder or more",
            remedy="triptych worker --broker amqp://... BUNDLE",
        )

    from triptych.serve.remote.roles import check_worker
    from triptych.serve.remote.worker import work

    check_worker(settings)

    def announce() -> None:
        print(f"triptych: working on {' '.join(bundle.name for bundle in bundles)}", flush=True)

    raise typer.Exit(work(bundles, settings, announce))
