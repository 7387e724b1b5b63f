"""Requests that come at a fixed rate, whoever is answered: `python -m triptych.bench.arrivals` with a `Plan`.

Who asks again only when answered slows down with the server, and never shows what a crowd would do to it.
Here each request is due at its own moment and goes over a connection that is free, or a new one. It runs in a
process of its own, on uvloop, and reads no more of an answer than its status and length.
"""

from __future__ import annotations

import asyncio
import math
import re
import subprocess
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

import msgspec
import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
SETTLE_S = 5.0  # by then the last ones are answered, or count as lost


class Plan(msgspec.Struct, frozen=True):
    """What to ask, how often in a second, for how long; `timeout_s` is the deadline of each request."""

    url: str
    body: str
    rate: float
    seconds: float
    timeout_s: float


class Seen(msgspec.Struct, frozen=True):
    """What became of it.

    Args:
        answered, refused, others: answers of 200, of 503, and of any other kind or none.
        refused_ms: the times that half, 99 and 99.9 % of the refusals stayed below, from sent to read.
        late_ms: by how much requests were sent later than they were due; 99 % stayed below.
        seconds: from the first request to the moment the last was due.
    """

    answered: int
    refused: int
    others: int
    refused_ms: tuple[float, float, float]
    late_ms: float
    seconds: float

    @property
    def answers_per_second(self) -> float:
        """Those of 200."""
        return self.answered / self.seconds


class Caller(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport: asyncio.Transport
        self._read = b""
        self._sent_at_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It can be used."""
        self._transport = transport

    def ask(self) -> None:
        """Send the request."""
        self._sent_at_s = time.perf_counter()
        self._transport.write(self._crowd.request)

    def data_received(self, data: bytes) -> None:
        """Wait for the end of the answer."""
        self._read = self._read + data if self._read else data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self._read, 0, head + 2)
        assert length is not None
        if len(self._read) >= head + 4 + int(length[1]):
            status, self._read = int(self._read[9:12]), b""
            self._crowd.answered(self, status, time.perf_counter() - self._sent_at_s)

    def connection_lost(self, error: Exception | None) -> None:
        """It is of no use any more."""
        self._crowd.lost(self)


class Crowd:
    """All callers."""

    def __init__(self, plan: Plan) -> None:
        self._plan, url = plan, urlsplit(plan.url)
        self._host, self._port = url.hostname or "", url.port or 80
        self.request = (
            f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Content-Type: application/json\r\n"
            f"Accept: application/x-npy\r\nRequest-Timeout: {plan.timeout_s:g}\r\n"
            f"Content-Length: {len(plan.body)}\r\n\r\n{plan.body}"
        ).encode()
        self._free: list[Caller] = []
        self._busy: set[Caller] = set()
        self._statuses: Counter[int] = Counter()
        self._refused_s: list[float] = []

    async def run(self) -> Seen:
        """Ask as planned, and wait for the last answers."""
        plan, late_s = self._plan, []
        count = math.ceil(plan.rate * plan.seconds)
        started_s = time.perf_counter()
        for number in range(count):
            due_s = started_s + number / plan.rate
            if (left_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(left_s)
            await self._ask()
            late_s.append(time.perf_counter() - due_s)
        elapsed_s = time.perf_counter() - started_s
        until_s = time.perf_counter() + plan.timeout_s + SETTLE_S
        while self._busy and time.perf_counter() < until_s:
            await asyncio.sleep(0.05)
        kinds = self._statuses
        refused_ms = [1000 * s for s in sorted(self._refused_s)]
        return Seen(
            answered=kinds[200],
            refused=kinds[503],
            others=count - kinds[200] - kinds[503],
            refused_ms=(at(refused_ms, 0.5), at(refused_ms, 0.99), at(refused_ms, 0.999)),
            late_ms=at(sorted(1000 * s for s in late_s), 0.99),
            seconds=elapsed_s,
        )

    def answered(self, caller: Caller, status: int, elapsed_s: float) -> None:
        """One has its answer, and is free again."""
        self._statuses[status] += 1
        if status == 503:
            self._refused_s.append(elapsed_s)
        self._busy.discard(caller)
        self._free.append(caller)

    def lost(self, caller: Caller) -> None:
        """One was cut off."""
        self._busy.discard(caller)
        if caller in self._free:
            self._free.remove(caller)

    async def _ask(self) -> None:
        if self._free:
            caller = self._free.pop()
        else:
            loop = asyncio.get_running_loop()
            _, caller = await loop.create_connection(lambda: Caller(self), self._host, self._port)
        self._busy.add(caller)
        caller.ask()


def at(values: list[float], share: float) -> float:
    """The value that this share of the sorted `values` stays below; 0 if there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def arrive(plan: Plan) -> Seen:
    """Carry out `plan` in a process of its own."""
    command = [sys.executable, "-m", "triptych.bench.arrivals"]
    done = subprocess.run(command, input=msgspec.json.encode(plan), capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Seen)


if __name__ == "__main__":
    crowd = Crowd(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(crowd.run())))
