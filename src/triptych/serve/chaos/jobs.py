"""Jobs under fault: handed in with a key until they are accepted, asked for until they have ended."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from itertools import pairwise
from typing import Any

from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.load import CONTENT
from triptych.serve.chaos.outcome import Check
from triptych.serve.chaos.server import Server

ENDED = frozenset({"done", "failed", "cancelled", "dead"})
AGAIN_S = 0.05
ROWS = 2
NPY = {"Accept": "application/x-npy"}


class JobLoad:
    """Clients that hand in one job after the other; who is not answered asks again with the same key.

    Args:
        server: where; may be exchanged for another when the first has ended.
        model: whose samples are asked for.
        prefix: of the keys, so that no two loads share one.
        first: seed of the first job; the next ones follow.
        pause_s: how long a client rests after each job.

    Attributes:
        accepted: seed -> path of the job, for each that was answered with 202.
        ended: seed -> what the server says of it in the end.
        accepted_at_s: when each of them was.
        refused: how often a job was not accepted, by status.
        blunt: how many of those were 503 without a `Retry-After`.
        slowest_refusal_s: the longest wait for one of those.
        twice: keys that were accepted as two different jobs.
        digests: seed -> SHA-256 of each result that was fetched.
    """

    def __init__(
        self,
        server: Server,
        model: str,
        prefix: str,
        *,
        first: int = 10_000,
        clients: int = 4,
        pause_s: float = 0.0,
    ) -> None:
        self.server, self.model, self.prefix, self.pause_s = server, model, prefix, pause_s
        self.accepted: dict[int, str] = {}
        self.ended: dict[int, dict[str, Any]] = {}
        self.accepted_at_s: list[float] = []
        self.refused: Counter[int] = Counter()
        self.blunt = 0
        self.slowest_refusal_s = 0.0
        self.twice: list[str] = []
        self.digests: dict[int, set[str]] = {}
        self._seeds = itertools.count(first)
        self._changed, self._over = threading.Condition(), threading.Event()
        self._threads = [threading.Thread(target=self._live) for _ in range(clients)]

    def __enter__(self) -> JobLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, *, timeout_s: float = 60.0) -> bool:
        """Return once `more` further jobs have been accepted; False if they are not in time."""
        with self._changed:
            goal = len(self.accepted) + more
            return self._changed.wait_for(lambda: len(self.accepted) >= goal, timeout_s)

    def stall_s(self, since_s: float) -> float:
        """The longest time without a job accepted, from `since_s` on."""
        moments = [since_s, *(moment for moment in self.accepted_at_s if moment > since_s)]
        return max((after - before for before, after in pairwise(moments)), default=math.inf)

    def submit(self, seed: int) -> int:
        """Hand one in; its status, 0 if there was no answer."""
        body = {"model": self.model, "kind": "sample", "request": {"n": ROWS, "seed": seed}}
        headers = {**CONTENT, "Idempotency-Key": f"{self.prefix}-{seed}"}
        started_s = time.monotonic()
        status, said, told = self._ask("POST", "/v1/jobs", json.dumps(body).encode(), headers)
        with self._changed:
            if status == 202:
                self.accepted_at_s.append(time.monotonic())
                path = f"/v1/jobs/{json.loads(said)['id']}"
                if self.accepted.setdefault(seed, path) != path:
                    self.twice.append(headers["Idempotency-Key"])
            elif status:
                self.refused[status] += 1
                self.blunt += status == 503 and "retry-after" not in told
                self.slowest_refusal_s = max(self.slowest_refusal_s, time.monotonic() - started_s)
            self._changed.notify_all()
        return status

    def finish(self, timeout_s: float) -> None:
        """Ask for every accepted job until it has ended, or the time is over; then fetch the results."""
        deadline_s = time.monotonic() + timeout_s
        while (open_ := [s for s in self.accepted if s not in self.ended]) and time.monotonic() < deadline_s:
            for seed in open_:
                status, said, _ = self._ask("GET", self.accepted[seed])
                if status == 200 and (told := json.loads(said))["status"] in ENDED:
                    self.ended[seed] = told
                elif status == 0:
                    break
            time.sleep(AGAIN_S)
        for seed, told in self.ended.items():
            if told["status"] == "done":
                status, result, _ = self._ask("GET", told["result"], headers=NPY)
                found = hashlib.sha256(result).hexdigest() if status == 200 else f"status {status}"
                self.digests.setdefault(seed, set()).add(found)

    def direct(self, server: Server, count: int) -> dict[int, str]:
        """The digests that the direct route gives for `count` jobs that were done: the first and the last."""
        wanted, seeds = {}, sorted(self.digests)
        for seed in {*seeds[: count - count // 2], *seeds[-(count // 2) :]}:
            body = json.dumps({"n": ROWS, "seed": seed}).encode()
            headers = {**CONTENT, **NPY}
            with closing(server.connect()) as connection:
                connection.request("POST", f"/v1/models/{self.model}/sample", body, headers)
                wanted[seed] = hashlib.sha256(connection.getresponse().read()).hexdigest()
        return wanted

    def invariants(self, reference: Mapping[int, str]) -> dict[str, Check]:
        """I1 to I4 of these jobs.

        Args:
            reference: digests of results, from a server without faults.
        """
        count = len(self.accepted)
        missing = [seed for seed in self.accepted if seed not in self.ended]
        states = Counter(told["status"] for told in self.ended.values())
        told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        failed = [s for s, told in self.ended.items() if told["status"] == "failed" and s in set(Fault)]
        balanced = not missing and states["done"] + states["dead"] + len(failed) == count
        again = sum(told["redelivered"] > 0 for told in self.ended.values())
        differing = [seed for seed, found in self.digests.items() if len(found) > 1]
        wrong = [s for s, wanted in reference.items() if s in self.digests and self.digests[s] != {wanted}]
        other = [seed for seed, said in self.ended.items() if said["seed"] != seed]
        return {
            "I1": Check("each job ends", not missing and count > 0, f"{count} accepted, {len(missing)} open"),
            "I2": Check("accepted = done + dead + failed of itself", balanced, f"{count} accepted: {told}"),
            "I3": Check(
                "one key, one job, the same bytes",
                not differing and not self.twice,
                f"{again} marked as redelivered, {len(self.twice)} keys twice, {len(differing)} differ",
            ),
            "I4": Check(
                "each result is its own",
                not wrong and not other,
                f"{len(reference)} compared with the direct route, {len(wrong)} differ, {len(other)} strange",
            ),
        }

    def _live(self) -> None:
        for seed in self._seeds:
            while not self._over.is_set() and self.submit(seed) != 202:
                self._over.wait(AGAIN_S)
            if self._over.wait(self.pause_s):
                return

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, frozenset[str]]:
        try:
            with closing(self.server.connect(15.0)) as connection:
                connection.request(method, path, body, dict(headers or {}))
                answer = connection.getresponse()
                return answer.status, answer.read(), frozenset(map(str.lower, answer.headers))
        except (OSError, http.client.HTTPException):
            return 0, b"", frozenset()
