"""25: descriptors run out, the port is taken, the clock jumps."""

from __future__ import annotations

import resource
import time
from urllib.parse import urlsplit

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.experiments.disconnects import send
from triptych.serve.chaos.faults import JUMPING_CLOCK, SLOW_FIRST
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.load import sample
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.stage import TIMEOUT_S

SPARE = 24  # descriptors left to the node
SHORT_S = 0.3


def run(lab: Lab) -> None:
    """The clock jumps all the while, a second server wants the port, then descriptors run out."""
    server = lab.serve(sabotage=JUMPING_CLOCK)
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
    """Timers do not follow the wall clock: what takes longer than its deadline expires, by then or as soon as
    the server knows it, and what does not is answered.
    """
    hasty, patient = (
        lab.ask_once(server, sample(SLOW_FIRST + 900, lab.stage.image, n=60, timeout_s=timeout_s))
        for timeout_s in (SHORT_S, TIMEOUT_S)
    )
    detail = f"{hasty.status} after {hasty.elapsed_s:.2f} s"
    in_time = hasty.elapsed_s <= SHORT_S + 1.0
    lab.check("a deadline is kept while the clock jumps", hasty.status == 504 and in_time, detail)
    detail = f"{patient.status} after {patient.elapsed_s:.2f} s"
    lab.check("and nothing expires before it", patient.status == 200, detail)


def port_in_use(lab: Lab, server: Server) -> None:
    """Another server on the same port says what to do."""
    port = str(urlsplit(server.address).port)
    code, said = lab.run_serve(lab.stage.bundles[0], "--port", port)
    lab.check("a port in use is named", code != 0 and port in said and "--port" in said, said[-200:])


def without_descriptors(lab: Lab, server: Server) -> None:
    """More connections than the node has descriptors for; those it has go on, new ones wait."""
    node = server.node_pid()
    limits = resource.prlimit(node, resource.RLIMIT_NOFILE)
    resource.prlimit(node, resource.RLIMIT_NOFILE, (process.open_files(node) + SPARE, limits[1]))
    connections = [send(server, lab.stage.requests[0]) for _ in range(2 * SPARE)]
    lab.check("the node lives", server.node_pid() == node)
    for connection in connections:
        connection.close()
    resource.prlimit(node, resource.RLIMIT_NOFILE, limits)
    started_s = time.monotonic()
    # who connects before the node has got through those it could not take is still turned away with them
    answered = lab.wait_until(lambda: lab.ask_once(server, lab.stage.requests[0]).status == 200)
    lab.check("a new connection is answered afterwards", answered)
    lab.at_most("answered again", time.monotonic() - started_s, "s", 2.0)


EXPERIMENT = Experiment(
    25,
    "no file descriptors left; a port in use; a clock that jumps by hours",
    "clear errors; what runs goes on; deadlines are kept",
    run,
)
