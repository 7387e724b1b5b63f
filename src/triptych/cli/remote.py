"""Asking a running server, for the verbs that operate one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from triptych.errors import ServeError


def ask(method: str, url: str, token: str, timeout_s: float) -> Any:
    """The JSON that a server answers; raises what `fetch` raises."""
    try:
        return json.loads(fetch(method, url, token, timeout_s))
    except ValueError as error:
        raise ServeError("does not answer in JSON", where=url, remedy="name a Triptych server") from error


def fetch(method: str, url: str, token: str, timeout_s: float) -> bytes:
    """What a server answers.

    Raises: ServeError if nobody answers there, or with what the server says is wrong.
    """
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise ServeError(message(error.read()) or f"answered {error.code}", where=url) from error
    except (OSError, ValueError) as error:
        raise ServeError(
            f"does not answer ({error})", where=url, remedy="name a running server with --url"
        ) from error


def message(body: bytes) -> str:
    """What an error's body says, in the server's own words."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(error["message"] if isinstance(error, dict) else error)
