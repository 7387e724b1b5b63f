"""Asking a server about its dead letters."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from triptych.errors import ConfigError, NotFoundError, ServeError

TIMEOUT_S = 10.0


class DeadLetters:
    """The dead jobs of the server at `url`."""

    def __init__(self, url: str, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"got `{url}`", where="--url", valid="http://HOST:PORT")
        self._url = url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def read(self) -> list[dict[str, Any]]:
        """The oldest of them, a hundred at most."""
        jobs: list[dict[str, Any]] = self._ask("GET", "/v1/jobs")["jobs"]
        return jobs

    def requeue(self, id: str) -> None:
        """Try one again."""
        self._ask("POST", f"/v1/jobs/{id}/requeue")

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        data = b"" if method == "POST" else None
        request = urllib.request.Request(self._url + path, data, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answered: dict[str, Any] = json.load(answer)
                return answered
        except urllib.error.HTTPError as error:
            with error:
                kind = NotFoundError if error.code == 404 else ServeError
                raise kind(reason_in(error.read()) or str(error.reason), where=path) from error
        except OSError as error:
            remedy = "is the server up? --url says where"
            raise ServeError(f"does not answer ({error})", where=self._url, remedy=remedy) from error


def reason_in(body: bytes) -> str:
    """The message of an error's body, if there is one."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
