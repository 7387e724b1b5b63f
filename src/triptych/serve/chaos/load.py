"""Load: requests over a few keep-alive connections, each answer kept as a digest, never asked twice."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from triptych.serve.chaos.server import Server

CONNECTIONS = 16
HANG_S = 10.0  # beyond its deadline a request that has no answer is called hung
CONTENT = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """One POST. `number` tells requests apart; the same number always asks the same.

    Args:
        kind: a name for tables; `text` and `stream` have bodies of OpenAI's shape.
        seed: what the header `Triptych-Seed` of the answer must say; None if it need not.
        timeout_s: its deadline, sent as `Request-Timeout`; None leaves it to the server.
    """

    number: int
    kind: str
    path: str
    body: bytes
    accept: str = "application/json"
    seed: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        digest: SHA-256 of the part of the body that the request determines; empty unless `status` is 200.
        error: empty for a whole answer with status 200.
        status: 0 if no whole answer came.
        seed_echoed: whether the answer names the seed that was asked for.
    """

    number: int
    kind: str
    digest: str
    error: str
    answered_at_s: float
    elapsed_s: float
    status: int = 0
    seed_echoed: bool = True
    timeout_s: float | None = None


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
    """SHA-256 of the body; of completions the choices alone, since they also carry an id and the time.

    Raises: ValueError if a stream's body does not end as it must: it was cut off.
    """
    if kind == "text":
        body = json.dumps(json.loads(body)["choices"], sort_keys=True).encode()
    elif kind == "stream":
        if not body.endswith(b"data: [DONE]\n\n"):
            raise ValueError(f"the stream was cut off: {body[-200:]!r}")
        events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line.startswith(b"data: {")]
        choices = [choice for event in events for choice in event["choices"]]
        ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        body = json.dumps(["".join(choice["text"] for choice in choices), ends]).encode()
    return hashlib.sha256(body).hexdigest()


def ask(connection: http.client.HTTPConnection, request: Request) -> Answer:
    """Send one request and wait for its answer; a broken connection is an error, never retried."""
    started_s = time.monotonic()
    seen, error, status, echoed = "", "", 0, True
    headers = {**CONTENT, "Accept": request.accept}
    if request.timeout_s is not None:
        headers["Request-Timeout"] = f"{request.timeout_s:g}"
    try:
        connection.request("POST", request.path, request.body, headers)
        response = connection.getresponse()
        body = response.read()
        status = response.status
        if status == 200:
            seen = digest(body, request.kind)
            echoed = request.seed is None or response.headers["Triptych-Seed"] == str(request.seed)
        else:
            error = f"{status} {body[:200].decode(errors='replace')}"
            if status == 503 and "Retry-After" not in response.headers:
                error = "503 without Retry-After"
    except (OSError, http.client.HTTPException, ValueError) as broken:
        error, status = f"{type(broken).__name__}: {broken}", 0
        connection.close()
    now_s = time.monotonic()
    return Answer(
        request.number,
        request.kind,
        seen,
        error,
        now_s,
        now_s - started_s,
        status,
        echoed,
        request.timeout_s,
    )


class Load:
    """Clients with a connection each; each takes the next of `requests` when its last was answered.

    Entered, it runs until the block ends, or `requests` do; then every client has had its last answer.

    Args:
        requests: endless if a cycle.
        connections: how many clients.
        pause_s: what a client waits after an answer before it asks again.
        until_refused: a client that is refused a new connection ends, and that is no error: the server was
            gone before it asked.
        on_answer: called with the number of answers so far.
    """

    def __init__(
        self,
        server: Server,
        requests: Iterable[Request],
        *,
        connections: int = CONNECTIONS,
        pause_s: float = 0.0,
        until_refused: bool = False,
        on_answer: Callable[[int], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self._server, self._source = server, iter(requests)
        self._pause_s, self._until_refused, self._on_answer = pause_s, until_refused, on_answer
        self._changed, self._over = threading.Condition(), threading.Event()
        self._threads = [threading.Thread(target=self._live) for _ in range(connections)]

    def __enter__(self) -> Load:
        self.tally.started_at_s = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()

    def join(self) -> Tally:
        """Return once every client has ended."""
        for thread in self._threads:
            thread.join()
        self.tally.elapsed_s = time.monotonic() - self.tally.started_at_s
        return self.tally

    def wait_for(self, more: int, *, timeout_s: float = 60.0) -> bool:
        """Return once `more` further answers have come; False if they do not in time."""
        with self._changed:
            goal = len(self.tally.answers) + more
            return self._changed.wait_for(lambda: len(self.tally.answers) >= goal, timeout_s)

    def run_for(self, seconds: float) -> None:
        """Let it go on for a while."""
        self._over.wait(seconds)

    def _live(self) -> None:
        connection = self._server.connect()
        while not self._over.is_set():
            with self._changed:
                request = next(self._source, None)
            if request is None or (self._until_refused and not reaches(connection)):
                break
            connection.timeout = (request.timeout_s or 60.0) + HANG_S
            self._note(ask(connection, request))
            if self._pause_s:
                self._over.wait(self._pause_s)
        connection.close()

    def _note(self, answer: Answer) -> None:
        with self._changed:
            self.tally.answers.append(answer)
            if self._on_answer is not None:
                self._on_answer(len(self.tally.answers))
            self._changed.notify_all()


def reaches(connection: http.client.HTTPConnection) -> bool:
    """Whether a connection is open, or can be opened."""
    if connection.sock is None:
        try:
            connection.connect()
        except (ConnectionRefusedError, ConnectionResetError):  # reset: the listener went while it was made
            return False
    return True


def run_load(server: Server, requests: Iterable[Request]) -> Tally:
    """Send `requests`, each once."""
    with Load(server, requests) as load:
        return load.join()


def plan(images: list[str], text: str, prompt: str, count: int) -> list[Request]:
    """`count` different requests: mostly samples of the image models, every twelfth a completion."""
    requests = []
    for number, model in zip(range(count), itertools.cycle(images), strict=False):
        if number % 12 == 11:
            requests.append(completion(number, text, prompt, max_tokens=24, temperature=0.8))
        else:
            accept = "application/x-npy" if number % 3 == 2 else "application/json"
            requests.append(sample(number, model, n=1 + number % 4, accept=accept))
    return requests


def sample(
    seed: int,
    model: str,
    *,
    n: int = 1,
    accept: str = "application/json",
    timeout_s: float | None = None,
) -> Request:
    """A request for samples; its seed is its number."""
    body = json.dumps({"n": n, "seed": seed}).encode()
    return Request(seed, model, f"/v1/models/{model}/sample", body, accept, seed, timeout_s)


def completion(
    seed: int,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float = 1.0,
    stream: bool = False,
    timeout_s: float | None = None,
) -> Request:
    """A request for a text; its seed is its number."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "seed": seed,
        "temperature": temperature,
    }
    if stream:
        body["stream"] = True
    kind = "stream" if stream else "text"
    return Request(seed, kind, "/v1/completions", json.dumps(body).encode(), seed=seed, timeout_s=timeout_s)
