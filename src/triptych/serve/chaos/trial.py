"""A trial: one stretch of load on one server, watched, with the server's own accounts beside the clients'."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from triptych.serve.chaos.load import Answer, Load, Request, Tally, ask
from triptych.serve.chaos.program import wait_until
from triptych.serve.chaos.server import Server
from triptych.serve.chaos.watch import Watch

QUIET_S = 5.0


class Trial:
    """Entered, it loads and watches; left, it has every answer, and the server's accounts.

    Args:
        server: who is asked.
        requests: what its clients ask, again and again.
        node_dies: the node is to die: callers may see their connection reset, and its accounts begin anew.
        strangers: others ask too, so the server counts more than these clients.
        versions: how many versions of a model may answer, one after the other.
        stops: the server is to stop: clients end when they are refused a connection, and nothing is asked of
            it afterwards.

    Attributes:
        load, watch: what goes on.
        extra: answers to what `ask` asked beside the load.
        counted: answers the server counted meanwhile, by status.
        left_over: what the server still held when everybody had their answer; empty if nothing.
        redelivered: requests the server says it had computed again.
    """

    def __init__(
        self,
        server: Server,
        requests: Sequence[Request],
        *,
        connections: int = 8,
        pause_s: float = 0.0,
        node_dies: bool = False,
        strangers: bool = False,
        versions: int = 1,
        stops: bool = False,
    ) -> None:
        self.server, self.node_dies, self.strangers, self.stops = server, node_dies, strangers, stops
        self.versions = versions
        self.load = Load(
            server,
            itertools.cycle(requests),
            connections=connections,
            pause_s=pause_s,
            until_refused=stops,
        )
        self.watch = Watch(server)
        self.extra = Tally()
        self.counted: Counter[int] = Counter()
        self.left_over = ""
        self.redelivered = 0

    @property
    def answers(self) -> list[Answer]:
        """All answers."""
        return self.load.tally.answers + self.extra.answers

    @property
    def errors(self) -> list[Answer]:
        """Those of the load's clients that were not 200, or did not come."""
        return self.load.tally.errors

    def __enter__(self) -> Trial:
        self._before = accounts(self.server)
        self._redelivered_before = self.server.metric("triptych_redelivered_total")
        self._open = ExitStack()
        self._open.enter_context(self.watch)
        self._open.enter_context(self.load)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        if self.stops or not self.server.is_running():
            return
        wait_until(lambda: not held(self.server), timeout_s=QUIET_S)
        self.left_over = held(self.server)
        if not self.node_dies:
            mine = Counter(answer.status for answer in self.answers if answer.status)
            wait_until(lambda: self._count() >= mine, timeout_s=1.0)
            self.counted = self._count()
            redelivered = self.server.metric("triptych_redelivered_total")
            self.redelivered = round(redelivered - self._redelivered_before)

    def ask(self, request: Request) -> Answer:
        """Ask one request beside the load."""
        connection = self.server.connect((request.timeout_s or 60.0) + 10.0)
        try:
            answer = ask(connection, request)
        finally:
            connection.close()
        self.extra.answers.append(answer)
        return answer

    def _count(self) -> Counter[int]:
        return accounts(self.server) - self._before


def accounts(server: Server) -> Counter[int]:
    """How many requests to models the server has answered, by status."""
    page = server.fetch("/metrics")[1].decode()
    counted: Counter[int] = Counter()
    for labels, value in re.findall(r"^triptych_requests_total\{(.*)\} (\S+)$", page, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told["model"]:
            counted[int(told["code"])] += round(float(value))
    return counted


def held(server: Server) -> str:
    """What the server holds although nobody asks: in words, empty if nothing."""
    health = server.get("/healthz")
    depth = health["queue"]["depth"]
    busy = sum(worker["in_flight"] + worker["streams"] for worker in health["workers"])
    return f"{depth} in the queue, {busy} in workers" if depth or busy else ""
