"""Asking a running server, for the verbs that operate one."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import TypeVar

import msgspec

from triptych.errors import ConfigError, ConflictError, NotFoundError, ServeError, TriptychError

T = TypeVar("T")

KINDS: dict[int, type[TriptychError]] = {404: NotFoundError, 409: ConflictError}


class Server:
    """The server at `url`.

    Raises: ConfigError for what is no address.
    """

    def __init__(self, url: str, token: str, timeout_s: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"got `{url}`", where="--url", valid="http://HOST:PORT")
        self.url, self._timeout_s = url.rstrip("/"), timeout_s
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, shape: type[T]) -> T:
        """The JSON that it answers, as a `shape`.

        Raises: what `fetch` raises; ServeError if it is something else.
        """
        try:
            return msgspec.json.decode(self.fetch(method, path), type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServeError(
                f"does not answer as Triptych does ({error})",
                where=self.url + path,
                remedy="name a Triptych server with --url",
            ) from error

    def fetch(self, method: str, path: str) -> bytes:
        """What it answers.

        Raises: ServeError if nobody answers in HTTP there; that, NotFoundError or ConflictError with what the
            server says is wrong.
        """
        try:
            status, body = self._send(method, path)
        except (OSError, ValueError, OverflowError, HTTPException) as error:
            raise ServeError(
                f"does not answer ({error or type(error).__name__})",
                where=self.url + path,
                remedy="name a running server with --url",
            ) from error
        if status >= 300:
            raise KINDS.get(status, ServeError)(message(body) or f"answered {status}", where=self.url + path)
        return body

    def _send(self, method: str, path: str) -> tuple[int, bytes]:
        data = b"" if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, self._headers, method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.read()


def message(body: bytes) -> str:
    """What an error's body says, in the server's own words; empty if it says nothing."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return ""
