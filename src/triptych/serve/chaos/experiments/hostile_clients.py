"""18: clients that mean harm, or that are careless."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from triptych.bundle.reader import read_manifest
from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import completion
from triptych.serve.chaos.server import Server

PACE_S = 1.0
CLIENTS = OWN_STREAMS = 4  # each client has a stream at most
STREAMS = 15
JSON = "Content-Type: application/json"


def run(lab: Lab) -> None:
    """Each gets one clear refusal, and the others keep their pace."""
    server = lab.shared()
    with lab.trial(server, connections=CLIENTS, strangers=True) as trial:
        slow = [slow_header(server), slow_reader(server, lab.stage.text)]
        begun = lab.wait_until(lambda: streams(server) >= STREAMS, timeout_s=5.0)
        lab.check("its streams have begun", begun)
        for _ in range(lab.times(1, long=50)):
            for name, status, request in bodies(lab):
                got = answered(server, request)
                if got != status or lab.quick:
                    lab.check(f"{name}: {status}", got == status, got)
        told = slow[0].makefile("rb").read(12)
        lab.check("a slow header: 408", told == b"HTTP/1.1 408", told)
        freed = lab.wait_until(lambda: streams(server) <= OWN_STREAMS, timeout_s=20.0)
        rest = everything(slow[1])
        lab.check("a client that does not read is cut off", freed and b"[DONE]" not in rest, len(rest))
        for connection in slow:
            connection.close()
        trial.load.wait_for(40)
    lab.no_errors(trial)
    slowest_s = max((answer.elapsed_s for answer in trial.load.tally.answers), default=0.0)
    lab.at_most("slowest answer to the others", slowest_s, "s", PACE_S)


def bodies(lab: Lab) -> list[tuple[str, int, bytes]]:
    """What is sent, and what it deserves."""
    path = f"/v1/models/{lab.stage.image}/sample"
    bundle = next(b for b in lab.stage.bundles if read_manifest(b).name == lab.stage.image)
    graph = read_manifest(bundle).graphs[0]
    run = f"/v1/models/{lab.stage.image}/run/{graph.name}"

    def inputs(value: object) -> bytes:
        return json.dumps({"inputs": {graph.inputs[0].name: value}}).encode()

    return [
        ("a body of 1 GB", 413, post(path, b"", f"Content-Length: {2**30}")),
        ("brackets 5,000 deep", 400, post(path, b"[" * 5000)),
        ("NaN", 400, post(path, b'{"n": NaN}')),
        ("not JSON", 400, post(path, b'{"n": 1')),
        ("an unknown field", 400, post(path, b'{"sede": 1}')),
        ("a wrong shape", 400, post(run, inputs([[[[[[1.0]]]]]]))),
        ("a wrong type", 400, post(run, inputs([["a"]]))),
        ("an unknown model", 404, post("/v1/models/nobody/sample", b"{}")),
        ("a header of 100 KB", 431, post(path, b"{}", "X: " + "x" * 100_000)),
        ("no HTTP", 400, b"\x16\x03\x01\x02\x00\x01\r\n\r\n"),
    ]


def post(path: str, body: bytes, *headers: str) -> bytes:
    """The bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", JSON, *headers]
    if not any(header.startswith("Content-Length") for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(server: Server, receive_bytes: int = 0) -> socket.socket:
    """A connection; with a small receive buffer it is soon full."""
    url = urlsplit(server.address)
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect((url.hostname or "", url.port or 0))
    return connection


def answered(server: Server, request: bytes) -> int:
    """The status of the answer; 0 if there is none."""
    with connect(server) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            connection.sendall(request)
        words: list[bytes] = []
        with suppress(ConnectionResetError):
            words = connection.recv(64).split()
    return int(words[1]) if len(words) > 1 else 0


def slow_header(server: Server) -> socket.socket:
    """A request whose header does not end."""
    connection = connect(server)
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return connection


def slow_reader(server: Server, model: str) -> socket.socket:
    """Streams of several megabytes that are not read."""
    request = completion(1, model, "", max_tokens=4000, stream=True)
    body = json.loads(request.body) | {"logprobs": 0, "n": STREAMS}
    connection = connect(server, receive_bytes=4096)
    connection.sendall(post(request.path, json.dumps(body).encode()))
    return connection


def streams(server: Server) -> int:
    """How many texts are being written."""
    return sum(worker["streams"] for worker in server.workers())


def everything(connection: socket.socket) -> bytes:
    """What has arrived and still arrives, until the end."""
    parts = []
    with suppress(ConnectionResetError):
        while part := connection.recv(2**20):
            parts.append(part)
    return b"".join(parts)


EXPERIMENT = Experiment(
    18,
    "a slow reader, a slow header, 1 GB, deep JSON, NaN, wrong shapes and types",
    "408, 413, 431 or 400 for each; the others keep their pace",
    run,
    brokers=ANYWHERE,
)
