"""Clients that ask without pause: samples and streamed texts over kept connections, nothing twice."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

HEADERS = {"Content-Type": "application/json"}


class Crowd:
    """Threads with a connection each. `answers`: (kind, seed) -> contents; `errors`: what was not 200.

    Being refused a connection ends a client and is no error: the server had gone before it asked.
    """

    def __init__(self, url: str, samplers: int = 6, readers: int = 2) -> None:
        where = urlsplit(url)
        self._where = where.hostname, where.port
        self._stop = threading.Event()
        self.answers: dict[tuple[str, int], set[bytes]] = {}
        self.errors: list[str] = []
        self.answered = 0
        self._changed = threading.Condition()
        kinds = ["sample"] * samplers + ["text"] * readers
        self._threads = [threading.Thread(target=self._live, args=(kind,)) for kind in kinds]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Return once every client has ended."""
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Return once `more` further answers have come."""
        with self._changed:
            goal = self.answered + more
            assert self._changed.wait_for(lambda: self.answered >= goal, timeout=60)

    def _live(self, kind: str) -> None:
        connection = http.client.HTTPConnection(*self._where, timeout=60)
        seed = 0
        try:
            while not self._stop.is_set():
                seed = (seed + 1) % 12
                if connection.sock is None:
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        return
                self._note(kind, seed, *self._ask(connection, kind, seed))
        except (OSError, http.client.HTTPException) as error:
            self._note(kind, seed, f"{type(error).__name__}: {error}", b"")
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, kind: str, seed: int) -> tuple[str, bytes]:
        if kind == "sample":
            connection.request("POST", "/v1/models/vae/sample", json.dumps({"n": 2, "seed": seed}), HEADERS)
        else:
            body = {"model": "text", "prompt": "ab", "max_tokens": 40, "seed": seed, "stream": True}
            connection.request("POST", "/v1/completions", json.dumps(body), HEADERS)
        answer = connection.getresponse()
        content = answer.read()
        error = "" if answer.status == 200 else f"{answer.status} {content!r}"
        if kind == "text" and not error:
            if not content.endswith(b"data: [DONE]\n\n"):
                error = f"cut off: {content[-200:]!r}"
            events = [json.loads(line[6:]) for line in content.split(b"\n\n") if line.startswith(b"data: {")]
            content = "".join(c["text"] for event in events for c in event["choices"]).encode()
        return error, content

    def _note(self, kind: str, seed: int, error: str, content: bytes) -> None:
        with self._changed:
            self.answered += 1
            if error:
                self.errors.append(error)
            else:
                self.answers.setdefault((kind, seed), set()).add(content)
            self._changed.notify_all()
