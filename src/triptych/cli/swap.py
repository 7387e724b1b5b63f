"""`triptych swap`: a running server takes over what has become of its bundles."""

from __future__ import annotations

from typing import Annotated, TypedDict

import typer


class Served(TypedDict):
    """A model that a server has, as far as it is asked for."""

    name: str


class Loaded(TypedDict):
    """What a server says once it has loaded its bundles anew: the version of each model."""

    versions: dict[str, str]


def swap(
    model: Annotated[str | None, typer.Argument(help="A model it serves.")] = None,
    url: Annotated[str, typer.Option(help="Where the server answers.")] = "http://127.0.0.1:8000",
    token: Annotated[str, typer.Option(envvar="TRIPTYCH_TOKEN", help="Its bearer token.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the new workers.")] = 120.0,
) -> None:
    """Have a server load its bundles anew, without an error for anyone; also restarts its workers.

    Put the new bundle in the place of the old one first, best by renaming folders.
    """
    from urllib.parse import quote

    from triptych.cli.remote import Server
    from triptych.errors import NotFoundError

    server = Server(url, token, timeout)
    models = server.ask("POST", "/v2/repository/index", list[Served])
    if not models and not model:
        raise NotFoundError("serves no model now", where=url)
    name = quote(model or models[0]["name"], safe="")
    answer = server.ask("POST", f"/v2/repository/models/{name}/load", Loaded)
    for served, version in answer["versions"].items():
        print(f"{served} {version}")
