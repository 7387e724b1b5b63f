"""`triptych requeue`: the dead letters of a running server, and another try for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triptych.cli.remote import Server

TIMEOUT_S = 10.0


class Reason(TypedDict):
    """Why a job is dead."""

    message: str


class Letter(TypedDict):
    """A dead job, as far as it is shown."""

    id: str
    model: str
    kind: str
    error: Reason


class Dead(TypedDict):
    """What a server says of its dead jobs."""

    jobs: list[Letter]


def requeue(
    job: Annotated[str | None, typer.Argument(help="Id of a dead job; none lists the first 100.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Try every dead job again, once.")] = False,
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="TRIPTYCH_TOKEN", help="Its bearer token.")] = "",
) -> None:
    """List dead jobs, or queue one or all of them again."""
    from triptych.cli.remote import Server
    from triptych.errors import ConfigError

    if job is not None and every:
        raise ConfigError("got an id and --all", where="requeue", valid="one of them")
    server = Server(url, token, TIMEOUT_S)
    if job is not None:
        queue_again(server, job)
        print(f"{job} is queued again")
    elif every:
        queue_all_again(server)
    else:
        dead = dead_letters(server)
        for letter in dead:
            print(letter["id"], letter["model"], letter["kind"], letter["error"]["message"], sep="  ")
        if not dead:
            print("no dead jobs")


def dead_letters(server: Server) -> list[Letter]:
    """The jobs that have been dead for longest, a hundred at most."""
    return server.ask("GET", "/v1/jobs", Dead)["jobs"]


def queue_again(server: Server, id: str) -> None:
    """Have a dead job tried again; raises NotFoundError or ConflictError if there is no such dead job."""
    from urllib.parse import quote

    server.fetch("POST", f"/v1/jobs/{quote(id, safe='')}/requeue")


def queue_all_again(server: Server) -> None:
    """Have every dead job tried again, each once, and say how many; also if the server then goes away."""
    from triptych.errors import ConflictError, NotFoundError

    count = 0
    try:
        for id in dead_ids(server):
            try:
                queue_again(server, id)
                count += 1
            except (ConflictError, NotFoundError):
                pass  # somebody else was faster: it is not dead any more
    finally:
        print(f"{count} jobs are queued again")


def dead_ids(server: Server) -> Iterator[str]:
    """The id of every dead job, each once.

    The longest dead come first: who reads on must have those of a page tried again, which makes room for the
    next. What dies of it once more comes last, and a page on which there is nothing else is the end.
    """
    known: set[str] = set()
    while new := [letter["id"] for letter in dead_letters(server) if letter["id"] not in known]:
        known.update(new)
        yield from new
