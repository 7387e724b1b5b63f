"""7: the node is killed, then the root."""

from __future__ import annotations

import time

from triptych.serve.chaos import process
from triptych.serve.chaos.experiment import Experiment
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.machines import Machines
from triptych.serve.chaos.server import Server

NODE_BACK_S = 5.0
ORPHANS_S = 1.0
FORGOTTEN_S = 12.0  # a gateway counts on a worker until it was silent for 10 s


def run(lab: Lab) -> None:
    """SIGKILL the node under load: it is back on its port. SIGKILL the root: nothing outlives it."""
    server = lab.serve()
    for _ in range(lab.times(1, long=3)):
        kill_node(lab, server)
    tree = process.children(server.pid)
    lab.check("root, node and workers are there", len(tree) == 3, tree)
    server.kill()
    orphans = process.wait_gone(tree, ORPHANS_S * lab.stage.patience)
    lab.check("no orphan outlives the root by a second", not orphans, orphans)
    lab.ended(server, planned=False)
    lab.deaths_in_time(NODE_BACK_S)


def on_machines(lab: Lab) -> None:
    """SIGKILL a whole worker: others do its work. SIGKILL the gateway's node, then its root, as above."""
    server = lab.machines()
    for _ in range(lab.times(1, long=3)):
        kill_machine(lab, server)
        kill_node(lab, server)
    tree = process.children(server.pid)
    server.kill()
    orphans = process.wait_gone(tree, ORPHANS_S * lab.stage.patience)
    lab.check("no orphan outlives the gateway's root by a second", not orphans, orphans)
    lab.ended(server, planned=False)


def kill_machine(lab: Lab, server: Machines) -> None:
    """Once, at a random moment; another takes its place, and no client notices."""
    with lab.trial(server) as trial:
        trial.load.wait_for(lab.chance.randrange(20, 80))
        running = [machine for machine in server.machines if machine.is_running()]
        below = server.lose(lab.chance.choice(running))
        orphans = process.wait_gone(below, ORPHANS_S * lab.stage.patience)
        lab.check("no process outlives the root of its worker", not orphans, orphans)
        server.add().until_up()
        forgotten = lab.wait_until(lambda: len(server.worker_pids()) == 2, timeout_s=FORGOTTEN_S)
        lab.check("the gateway counts two workers again", forgotten, server.worker_pids())
        trial.load.wait_for(40)
    lab.no_errors(trial)


def kill_node(lab: Lab, server: Server) -> None:
    """Once, at a random moment."""
    with lab.trial(server, node_dies=True) as trial:
        trial.load.wait_for(lab.chance.randrange(20, 80))
        node = server.node_pid()
        below = process.children(node)
        trial.watch.expect(None)
        killed_s = time.monotonic()
        blow = lab.strike(server, node)
        died = server.wait_for_event("died", past=blow.past, pid=node)
        lab.check("the root has seen it", died is not None)
        if died is not None:
            lab.death_seen_s = max(lab.death_seen_s or 0.0, died["at_s"] - blow.at_s)
        answer = trial.ask(lab.stage.requests[0])
        lab.recovery_s = max(lab.recovery_s or 0.0, time.monotonic() - killed_s)
        lab.check("it answers again on the same port", answer.status == 200, answer.error)
        trial.watch.expect(True)
        orphans = process.wait_gone(below, ORPHANS_S * lab.stage.patience)
        lab.check("no worker outlives its node", not orphans, orphans)
        trial.load.wait_for(40)
    resets = len(trial.errors)
    lab.check("a caller sees one reset at most", resets <= 8, f"{resets} resets of 8 connections")


def on_jobs(lab: Lab) -> None:
    """SIGKILL the node, then the root, while jobs come in: whoever follows them does what was accepted."""
    for _ in range(lab.times(1, long=3)):
        store = lab.stage.store()
        server = lab.serve_jobs(store)
        with lab.jobs(server) as jobs:
            jobs.wait_for(lab.chance.randrange(20, 60))
            lab.strike(server, server.node_pid())
            jobs.wait_for(lab.chance.randrange(20, 60))
            tree = process.children(server.pid)
            server.kill()
            orphans = process.wait_gone(tree, ORPHANS_S * lab.stage.patience)
            lab.check("no orphan outlives the root by a second", not orphans, orphans)
            lab.ended(server, planned=False)
            lab.take_over(jobs, store)
        lab.all_done(jobs)


EXPERIMENT = Experiment(
    7,
    "SIGKILL the node, the root",
    "the node is back on its port; callers see a reset, never a hang; no orphans",
    run,
    on_jobs=on_jobs,
    on_machines=on_machines,
)
