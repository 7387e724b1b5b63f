"""Verbs that ask a server: whatever answers there, one message; every dead job is tried again, once."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from triptych.cli.remote import Server
from triptych.cli.requeue import Dead
from triptych.cli.swap import Loaded, Served
from triptych.errors import ServeError, TriptychError
from triptych.serve.screen import Health

Run = Callable[..., tuple[int, str, str]]
Answer = Callable[[str, str], tuple[int, bytes]]  # method and path to status and body

VERBS = (["top", "--once"], ["swap"], ["requeue"], ["requeue", "--all"])


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.command, self.path)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def speaking(words: bytes) -> Iterator[str]:
    """The address of something that says `words` to whoever has asked, and is no server of HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(words)

        thread = threading.Thread(target=speak)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", b""])
def test_what_does_not_speak_http_does_not_answer(said: bytes) -> None:
    with speaking(said) as url, pytest.raises(ServeError, match="does not answer"):
        Server(url, "", 10).fetch("POST", "/v2/repository/index")


@pytest.mark.parametrize("said", [b"<html>", b"[1]", b'{"jobs": [{}]}', b'{"error": {}}', b"null", b'"\xff"'])
@pytest.mark.parametrize("shape", [Dead, Loaded, list[Served], Health])
def test_what_is_not_triptych_is_named(said: bytes, shape: Any) -> None:
    with serving(lambda *_: (200, said)) as url, pytest.raises(ServeError, match="Name a Triptych server"):
        Server(url, "", 10).ask("GET", "/v1/jobs", shape)
    with serving(lambda *_: (502, said)) as url, pytest.raises(ServeError, match="answered 502"):
        Server(url, "", 10).ask("GET", "/v1/jobs", shape)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "", "file:///etc/passwd", "http://127.0.0.1:x", "http://127.0.0.1:99999"]
)
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(TriptychError, match="--url"):
        Server(url, "", 10).fetch("GET", "/healthz")


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_verb_that_asks_somebody_else_ends_in_one_message(triptych: Run, words: list[str]) -> None:
    with serving(lambda *_: (200, b"<html>")) as url:
        code, _, error = triptych(*words, "--url", url)
    assert (code, "--url" in error) == (2, True)


def test_a_swap_of_nothing_says_that_nothing_is_served(triptych: Run) -> None:
    with serving(lambda *_: (200, b"[]")) as url:
        code, _, error = triptych("swap", "--url", url)
    assert (code, "serves no model now" in error) == (2, True)


def test_what_is_no_page_of_metrics_is_named(triptych: Run) -> None:
    health = {"version": "1", "uptime_s": 1, "draining": False, "models": {}, "workers": []}
    health["queue"] = {"depth": 0, "capacity": 1}

    def answer(_: str, path: str) -> tuple[int, bytes]:
        return 200, json.dumps(health).encode() if path == "/healthz" else b"<html> {"

    with serving(answer) as url:
        code, _, error = triptych("top", "--once", "--url", url)
    assert (code, "is no page of metrics" in error) == (2, True)


def test_an_address_may_end_in_a_slash(triptych: Run) -> None:
    with serving(lambda _, path: (200, b'{"jobs": []}') if path == "/v1/jobs" else (404, b"")) as url:
        assert triptych("requeue", "--url", f"{url}/")[:2] == (0, "no dead jobs\n")


def test_an_id_is_sent_whole(triptych: Run) -> None:
    asked = []

    def answer(_: str, path: str) -> tuple[int, bytes]:
        asked.append(path)
        return 202, b"{}"

    with serving(answer) as url:
        assert triptych("requeue", "a b/c?d", "--url", url)[0] == 0
    assert asked == ["/v1/jobs/a%20b%2Fc%3Fd/requeue"]


class Deadly:
    """Dead jobs, the longest dead first, that die again at once; `gone` are refused with a status."""

    def __init__(self, count: int, gone: dict[str, int]) -> None:
        self.dead, self.gone, self.tried = [f"job-{n}" for n in range(count)], gone, list[str]()

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        if method == "GET":
            page = [
                {"id": id, "model": "vae", "kind": "sample", "error": {"message": "it died"}}
                for id in self.dead[:100]
            ]
            return 200, json.dumps({"jobs": page}).encode()
        id = path.split("/")[3]
        self.tried.append(id)
        self.dead.remove(id)
        if id in self.gone:
            return self.gone[id], b""
        self.dead.append(id)
        return 202, b"{}"


def test_every_dead_job_is_tried_again_once(triptych: Run) -> None:
    jobs = Deadly(250, gone={"job-7": 409, "job-120": 404})
    with serving(jobs.answer) as url:
        code, out, _ = triptych("requeue", "--all", "--url", url)
    assert (code, out) == (0, "248 jobs are queued again\n")
    assert jobs.tried == [f"job-{n}" for n in range(250)]


def test_a_server_that_breaks_off_leaves_the_number_of_those_that_were_tried(triptych: Run) -> None:
    jobs = Deadly(5, gone={"job-3": 503})
    with serving(jobs.answer) as url:
        code, out, error = triptych("requeue", "--all", "--url", url)
    assert (code, out, "answered 503" in error) == (2, "3 jobs are queued again\n", True)


def test_dead_jobs_are_listed_with_their_reason(triptych: Run) -> None:
    with serving(Deadly(1, gone={}).answer) as url:
        assert triptych("requeue", "--url", url)[:2] == (0, "job-0  vae  sample  it died\n")
