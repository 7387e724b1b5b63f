"""`triptych requeue`: the dead letters of a running server, and another try for them."""

from __future__ import annotations

from typing import Annotated

import typer


def requeue(
    job: Annotated[str | None, typer.Argument(help="Id of a dead job; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Try all dead jobs again.")] = False,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="TRIPTYCH_TOKEN", help="Its bearer token.")] = "",
) -> None:
    """List dead jobs, or queue one or all of them again."""
    from triptych.errors import ConfigError
    from triptych.serve.jobs.client import DeadLetters

    if job and every:
        raise ConfigError("got an id and --all", where="requeue", valid="one of them")
    letters = DeadLetters(url, token)
    if job:
        letters.requeue(job)
        print(f"{job} is queued again")
        return
    count = 0
    while dead := letters.read():
        for letter in dead:
            reason = (letter.get("error") or {}).get("message", "")
            if every:
                letters.requeue(letter["id"])
                count += 1
            else:
                print(f"{letter['id']}  {letter['model']}  {letter['kind']}  {reason}")
        if not every:
            return
    print(f"{count} jobs are queued again" if every else "no dead jobs")
