"""17: clients that go away."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

from triptych.serve.chaos.experiment import ANYWHERE, Experiment
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import Request, completion
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.trial import held

FREE_S = 2.0
STREAMS, TOKENS = 8, 4000


def run(lab: Lab) -> None:
    """Some leave while queued or in a batch, some in the middle of a stream, many at once."""
    server = lab.shared()
    text = completion(lab.chance.randrange(10**6), lab.stage.text, "", max_tokens=TOKENS, stream=True)
    cancelled = server.metric("triptych_cancelled_total")
    with lab.trial(server, connections=4, strangers=True) as trial:
        for count in (16, lab.times(150, long=500)):
            leave(server, lab.stage.slow[0], count)
        streams = [send(server, text) for _ in range(STREAMS)]
        for stream in streams:
            stream.recv(4096)
            stream.close()
        freed = lab.wait_until(lambda: not long_held(server), timeout_s=FREE_S)
        lab.check("their places are free", freed, held(server))
        trial.load.wait_for(50)
    gone = server.metric("triptych_cancelled_total") - cancelled
    lab.check("they were noticed", gone > 0, f"{gone:.0f} counted as cancelled")
    lab.no_errors(trial)


def send(server: Server, request: Request) -> socket.socket:
    """A connection on which the request has been sent and nothing read."""
    url = urlsplit(server.address)
    connection = socket.create_connection((url.hostname or "", url.port or 0), timeout=10)
    head = f"POST {request.path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode() + request.body)
    return connection


def leave(server: Server, request: Request, count: int) -> None:
    """Many ask, and all hang up at once."""
    connections = [send(server, request) for _ in range(count)]
    for connection in connections:
        connection.close()


def long_held(server: Server) -> bool:
    """Whether more is held than the load that still goes on accounts for."""
    health = json.loads(server.fetch("/healthz")[1])
    streams = sum(worker["streams"] for worker in health["workers"])
    return bool(health["queue"]["depth"] > 8 or streams > 4)


EXPERIMENT = Experiment(
    17,
    "clients that disconnect: queued, in a batch, in a stream, hundreds at once",
    "their work is cancelled; others are unharmed",
    run,
    brokers=ANYWHERE,
)
