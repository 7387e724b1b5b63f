"""13: three nodes of RabbitMQ, and the one that leads the queue of jobs is killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from triptych.serve.chaos.experiment import AMQP, Experiment
from triptych.serve.chaos.experiments.broker_away import accepted_again, finish
from triptych.serve.chaos.experiments.queue_deleted import JOBS
from triptych.serve.chaos.lab import Lab
from triptych.serve.chaos.rabbit import RabbitServer

NODES, STALL_S, TOGETHER_S = 3, 10.0, 30.0


def run(lab: Lab) -> None:
    """SIGKILL whichever leads, behind a relay that finds the next one; it comes back, and so on."""
    nodes = cluster(lab)
    server = lab.serve_behind(lab.relay(*(node.port for node in nodes)))
    struck: list[float] = []
    with lab.jobs(server) as jobs:
        for _ in range(lab.times(1, long=4)):
            jobs.wait_for(lab.chance.randrange(20, 60))
            leader = leading(nodes)
            struck.append(time.monotonic())
            leader.kill()
            accepted_again(lab, jobs, f"{leader.name}, which led, was killed")
            leader.start()
            whole = lab.wait_until(lambda: members(nodes[0]) == NODES, timeout_s=TOGETHER_S)
            lab.check("the queue has all its members again", whole)
    finish(lab, jobs)
    lab.at_most("stall", max(map(jobs.stall_s, struck)), "s", STALL_S)


def cluster(lab: Lab) -> list[RabbitServer]:
    """Three nodes of this experiment's own."""
    first = lab.rabbit()
    with ThreadPoolExecutor(NODES - 1) as pool:
        return [first, *pool.map(lambda _: lab.rabbit(beside=first), range(NODES - 1))]


def leading(nodes: list[RabbitServer]) -> RabbitServer:
    """The node that leads the queue of jobs."""
    (name,) = [leader for queue, leader in nodes[0].queues("leader") if queue == JOBS]
    return next(node for node in nodes if node.name == name)


def members(node: RabbitServer) -> int:
    """How many members of the queue of jobs are up."""
    (online,) = [found for queue, found in node.queues("online") if queue == JOBS]
    return online.count("@")


EXPERIMENT = Experiment(
    13,
    "three nodes of RabbitMQ: the one that leads the queue is killed",
    "another leads within 10 s; no accepted job is lost",
    run,
    brokers=AMQP,
    is_long=True,
)
