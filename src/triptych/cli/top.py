"""`triptych top`: a running server on one screen, renewed every second."""

from __future__ import annotations

from typing import Annotated

import typer


def top(
    url: Annotated[str, typer.Option(help="Where the server answers.")] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="TRIPTYCH_TOKEN", help="Its bearer token.")] = "",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look for one interval, print, and end.")] = False,
) -> None:
    """Watch a server: requests and their times, queue, batches, and every worker with its restarts."""
    import time

    from rich.console import Console
    from rich.live import Live

    from triptych.cli.remote import Server
    from triptych.errors import ServeError
    from triptych.serve.screen import Health, Look, screen

    server = Server(url, token, timeout_s=10)

    def look() -> Look:
        health = server.ask("GET", "/healthz", Health)
        page = server.fetch("GET", "/metrics")
        try:
            return Look.of(health, page.decode(), time.monotonic())
        except ValueError as error:
            raise ServeError(f"is no page of metrics ({error})", where=f"{server.url}/metrics") from error

    console, before = Console(), look()
    time.sleep(interval)
    if once:
        console.print(screen(before, look()))
        return
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            now = look()
            live.update(screen(before, now), refresh=True)
            before = now
            time.sleep(interval)
