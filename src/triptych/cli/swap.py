"""`triptych swap`: a running server takes over what has become of its bundles."""

from __future__ import annotations

from typing import Annotated

import typer


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

    from triptych.cli.remote import ask

    names = [found["name"] for found in ask("POST", f"{url}/v2/repository/index", token, timeout)]
    name = quote(model or names[0], safe="")
    answer = ask("POST", f"{url}/v2/repository/models/{name}/load", token, timeout)
    for served, version in answer["versions"].items():
        print(f"{served} {version}")
