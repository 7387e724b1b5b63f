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

    from triptych.cli.remote import ask, fetch
    from triptych.serve.screen import Look, screen

    def look() -> Look:
        health = ask("GET", f"{url}/healthz", token, 10)
        page = fetch("GET", f"{url}/metrics", token, 10).decode()
        return Look.of(health, page, time.monotonic())

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
