"""25: descriptors run out, the port is taken, the clock jumps."""

from __future__ import annotations

import resource
import time
from urllib.parse import urlsplit

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments.disconnects import send
from triptych.serve.chaos.faults import JUMPING_CLOCK
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import completion
from triptych.serve.chaos.server import Server

SPARE = 24  # descriptors left to the node
SHORT_S = 0.3
TOKENS = 100_000


def run(lab: Lab) -> None:
    """The clock jumps all the while, a second server wants the port, then descriptors run out."""
    server = lab.serve(f"limits.tokens={TOKENS}", sabotage=JUMPING_CLOCK)
    with lab.trial(server, connections=4, strangers=True) as trial:
        trial.load.wait_for(20)
        deadline(lab, server)
        port_in_use(lab, server)
        trial.watch.expect(None)  # who looks needs a connection too
        without_descriptors(lab, server)
        trial.watch.expect(True)
        trial.load.wait_for(40)
    lab.no_errors(trial)


def deadline(lab: Lab, server: Server) -> None:
    """Timers do not follow the wall clock. Of a text nobody knows beforehand how long it takes, so it is not
    refused before its deadline.
    """
    endless = completion(0, lab.stage.text, "", max_tokens=TOKENS, timeout_s=SHORT_S)
    answer = lab.ask_once(server, endless)
    in_time = SHORT_S - 0.05 <= answer.elapsed_s <= SHORT_S + 1.0
    detail = f"{answer.status} after {answer.elapsed_s:.2f} s"
    lab.check("a deadline is kept while the clock jumps", answer.status == 504 and in_time, detail)


def port_in_use(lab: Lab, server: Server) -> None:
    """Another server on the same port says what to do."""
    port = str(urlsplit(server.address).port)
    code, said = lab.run_serve(lab.stage.bundles[0], "--port", port)
    lab.check("a port in use is named", code != 0 and port in said and "--port" in said, said[-200:])


def without_descriptors(lab: Lab, server: Server) -> None:
    """More connections than the node has descriptors for; those it has go on, new ones wait."""
    node = server.node_pid()
    limits, held = resource.prlimit(node, resource.RLIMIT_NOFILE), process.open_files(node)
    resource.prlimit(node, resource.RLIMIT_NOFILE, (held + SPARE, limits[1]))
    connections = [send(server, lab.stage.requests[0]) for _ in range(2 * SPARE)]
    lab.check("the node lives", server.node_pid() == node)
    for connection in connections:
        connection.close()
    resource.prlimit(node, resource.RLIMIT_NOFILE, limits)
    started_s = time.monotonic()
    # who connects before the node is through with those it could not take is turned away with them
    lab.wait_until(lambda: process.open_files(node) <= held)
    answer = lab.ask_once(server, lab.stage.requests[0])
    lab.check("a new connection is answered afterwards", answer.status == 200, answer.error)
    lab.at_most("answered again", time.monotonic() - started_s, "s", 2.0)


EXPERIMENT = Experiment(
    25,
    "no file descriptors left; a port in use; a clock that jumps by hours",
    "clear errors; what runs goes on; deadlines are kept",
    run,
)
