"""Load: many requests over a few keep-alive connections, each answer kept as a digest."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from triptych.demo.server import Server

CONNECTIONS = 16


@dataclass(frozen=True)
class Request:
    """One POST. `number` tells requests apart; the same number always asks the same."""

    number: int
    kind: str
    path: str
    body: bytes
    accept: str = "application/json"


@dataclass(frozen=True)
class Answer:
    """What came back: `digest` covers the part of the body that the request determines."""

    number: int
    kind: str
    digest: str
    error: str
    answered_at_s: float
    elapsed_s: float


@dataclass
class Tally:
    """The answers of one load, in the order they came."""

    answers: list[Answer] = field(default_factory=list)
    started_at_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def errors(self) -> list[Answer]:
        """Those that were not 200, or did not come."""
        return [answer for answer in self.answers if answer.error]

    def digests(self) -> dict[int, set[str]]:
        """Every digest that was seen for each request number."""
        seen: dict[int, set[str]] = {}
        for answer in self.answers:
            seen.setdefault(answer.number, set()).add(answer.digest)
        return seen


def digest(body: bytes, kind: str) -> str:
    """SHA-256 of the body; of its choices alone for completions, which also carry an id and the time."""
    if kind == "text":
        body = json.dumps(json.loads(body)["choices"], sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest()


def ask(connection: http.client.HTTPConnection, request: Request) -> Answer:
    """Send one request and wait for its answer; a broken connection is an error, never retried."""
    started_s = time.monotonic()
    seen, error = "", ""
    try:
        headers = {"Content-Type": "application/json", "Accept": request.accept}
        connection.request("POST", request.path, request.body, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            seen = digest(body, request.kind)
        else:
            error = f"{response.status} {body[:200].decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as broken:
        error = f"{type(broken).__name__}: {broken}"
        connection.close()
    answered_s = time.monotonic()
    return Answer(request.number, request.kind, seen, error, answered_s, answered_s - started_s)


def run_load(
    server: Server, requests: Iterable[Request], *, on_answer: Callable[[int], None] | None = None
) -> Tally:
    """Send `requests` over `CONNECTIONS` connections; each takes the next when its last was answered.

    Args:
        on_answer: called with the number of answers so far; it may stop an endless `requests`.
    """
    tally, lock, source = Tally(started_at_s=time.monotonic()), threading.Lock(), iter(requests)

    def client() -> None:
        connection = server.connect()
        while True:
            with lock:
                request = next(source, None)
            if request is None:
                break
            answer = ask(connection, request)
            with lock:
                tally.answers.append(answer)
                if on_answer is not None:
                    on_answer(len(tally.answers))
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.elapsed_s = time.monotonic() - tally.started_at_s
    return tally


def plan(images: list[str], text: str, prompt: str, count: int) -> list[Request]:
    """`count` different requests: mostly samples of the image models, every twelfth a completion."""
    requests = []
    for number, model in zip(range(count), itertools.cycle(images), strict=False):
        if number % 12 == 11:
            body = {"model": text, "prompt": prompt, "max_tokens": 24, "seed": number, "temperature": 0.8}
            requests.append(Request(number, "text", "/v1/completions", json.dumps(body).encode()))
        else:
            accept = "application/x-npy" if number % 3 == 2 else "application/json"
            body = {"n": 1 + number % 4, "seed": number}
            path = f"/v1/models/{model}/sample"
            requests.append(Request(number, model, path, json.dumps(body).encode(), accept))
    return requests
