"""A gateway, RabbitMQ and two workers: the same bytes as in one process, whichever worker is lost."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import triptych
from triptych.serve.fingerprint import fingerprint

pytestmark = pytest.mark.timeout(120)


class Program:
    """A running `triptych gateway` or `triptych worker`, maybe in a network namespace."""

    def __init__(self, log: Path, *arguments: str, namespace: str = "") -> None:
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        command = [*inside, sys.executable, "-m", "triptych", *arguments]
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    def line(self) -> str:
        """What it says once it is up."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        return line

    def logged(self, words: str) -> int:
        """How often it has said so."""
        return self.log.read_text().count(words)

    async def until_logged(self, words: str, times: int = 1) -> None:
        """Return once it has said so that often."""
        async with asyncio.timeout(30):
            while self.logged(words) < times:
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """End it, however it stands."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start programs; all are ended after the test."""
    running: list[Program] = []

    def run(*arguments: str, namespace: str = "") -> Program:
        running.append(Program(tmp_path / f"{len(running)}.log", *arguments, namespace=namespace))
        return running[-1]

    yield run
    for program in running:
        program.stop()


class Network:
    """Network namespaces, each on lines of its own to the one in which the test (and RabbitMQ) runs."""

    def __init__(self) -> None:
        self.tag, self.block = secrets.token_hex(3), secrets.randbelow(256)
        self.namespaces: list[str] = []
        self._lines = 0

    def add(self) -> str:
        """One more."""
        name = f"triptych-{self.tag}-{len(self.namespaces)}"
        ip("netns", "add", name)
        self.namespaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def lay(self, namespace: str) -> tuple[str, str, str]:
        """A line to `namespace`: what it is called here, and its addresses here and there."""
        self._lines += 1
        here, there = f"tt{self.tag}{self._lines}", f"tp{self.tag}{self._lines}"
        base = 4 * self._lines
        near, far = (f"198.18.{self.block}.{base + end}" for end in (1, 2))
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        ip("addr", "add", f"{near}/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", namespace, "addr", "add", f"{far}/30", "dev", there)
        ip("-n", namespace, "link", "set", there, "up")
        return here, near, far

    def close(self) -> None:
        """Take all of it down."""
        for name in self.namespaces:
            ip("netns", "del", name)


def ip(*arguments: str) -> None:
    """Have iproute2 do something."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of our own; skipped where none may be made, which on CI is a failure."""
    made = Network()
    try:
        made.add()
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no network namespace can be made: {getattr(error, 'stderr', error)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    yield made
    made.close()


def until_ready(client: httpx.Client, is_ready: bool = True) -> None:
    """Return once the gateway says so."""
    deadline_s = time.monotonic() + 30
    while client.get("/readyz").json()["ready"] != is_ready:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


class Load:
    """Requests in a row from several clients, each answer compared with what the library makes."""

    def __init__(self, url: str, bundle: Path) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=60)
        engine = triptych.load(bundle)
        self.expected = {seed: engine.sample(2, seed=seed).tobytes() for seed in range(20)}
        self.answered, self.refused, self.wrong = 0, 0, list[str]()
        self._is_over = False

    async def _ask(self, seed: int) -> None:
        while not self._is_over:
            seed = (seed + 1) % len(self.expected)
            answer = await self.client.post(
                "/v1/models/vae/sample",
                json={"n": 2, "seed": seed},
                headers={"accept": "application/x-npy"},
            )
            self.answered += 1
            if answer.status_code == 503 and "retry-after" in answer.headers:
                self.refused += 1
                await asyncio.sleep(0.2)
            elif answer.status_code != 200:
                self.wrong.append(answer.text)
            elif np.load(io.BytesIO(answer.content)).tobytes() != self.expected[seed]:
                self.wrong.append(f"other bytes for {seed}")

    async def answers(self, more: int) -> None:
        """Return once that many more have been answered."""
        wanted = self.answered + more
        while self.answered < wanted:
            await asyncio.sleep(0.01)

    async def during(self, script: Callable[[Load], object], *, may_refuse: bool = False) -> None:
        """Eight clients ask while `script` runs; every request must be answered, and rightly."""
        asking = [asyncio.create_task(self._ask(seed)) for seed in range(8)]
        await self.answers(50)
        await script(self)  # type: ignore[misc]
        self._is_over = True
        await asyncio.gather(*asking)
        await self.client.aclose()
        assert self.wrong == []
        assert may_refuse or not self.refused


def test_bytes_and_texts_are_those_of_the_library(run, bundles, rabbitmq):
    gateway = run("gateway", "--broker", rabbitmq.url, "--port", "0")
    with httpx.Client(base_url=gateway.line().split()[-1], timeout=30) as client:
        until_ready(client, False)
        early = client.post("/v1/models/vae/sample", json={"n": 1})
        assert (early.status_code, "retry-after" in early.headers) == (503, True)
        both = run(
            "worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "vae"), str(bundles / "text")
        )
        both.line()
        until_ready(client)
        made = client.post(
            "/v1/models/vae/sample",
            json={"n": 3, "seed": 7},
            headers={"accept": "application/x-npy", "x-request-id": "order-7"},
        )
        assert made.headers["x-request-id"] == "order-7"
        assert np.array_equal(
            np.load(io.BytesIO(made.content)), triptych.load(bundles / "vae").sample(3, seed=7)
        )
        z = [[0.5, -0.5, 1.0, 2.0]]
        ran = client.post("/v1/models/vae/run/decode", json={"inputs": {"z": z}})
        assert ran.status_code == 200
        refused = client.post("/v1/models/vae/run/decode", json={"inputs": {"y": z}})
        assert refused.status_code == 400
        body = {"model": "text", "prompt": "To be", "max_tokens": 20, "seed": 3}
        whole = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
        engine = triptych.load(bundles / "text")
        assert whole == engine.generate("To be", max_tokens=20, seed=3).text
        streamed = client.post("/v1/completions", json={**body, "stream": True}).text
        assert streamed.rstrip().endswith("data: [DONE]")
        workers = client.get("/v2/workers").json()["workers"]
        assert [worker["state"] for worker in workers] == ["ready"]
        both.process.send_signal(signal.SIGTERM)
        assert both.process.wait(30) == 0
        until_ready(client, False)
        late = client.post("/v1/models/vae/sample", json={"n": 1})
        assert (late.status_code, "retry-after" in late.headers) == (503, True)
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(30) == 0


def test_a_job_waits_for_a_worker_through_the_death_of_its_gateway(run, bundles, rabbitmq, tmp_path):
    arguments = ["gateway", "--broker", rabbitmq.url, "--port", "0", "--jobs", str(tmp_path / "jobs.db")]
    worker = ["worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "vae")]
    first = run(*arguments)
    url = first.line().split()[-1]
    with httpx.Client(base_url=url, timeout=30) as client:
        computing = run(*worker)
        computing.line()
        until_ready(client)
        computing.process.send_signal(signal.SIGTERM)
        assert computing.process.wait(30) == 0
        until_ready(client, False)
        job = client.post("/v1/jobs", json={"kind": "sample", "model": "vae", "request": {"n": 2, "seed": 7}})
        assert job.status_code == 202, job.text
    first.process.kill()
    again = run(*arguments)
    with httpx.Client(base_url=again.line().split()[-1], timeout=30) as client:
        run("worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "text"))
        asyncio.run(again.until_logged("nobody has `vae` now"))  # others are there, its own is not
        run(*worker)
        deadline_s = time.monotonic() + 60
        where = job.headers["location"]
        while (told := client.get(where).json())["status"] != "done":
            assert told["status"] in ("queued", "running"), told
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        made = client.get(f"{where}/result").json()
    assert np.array_equal(np.float32(made["samples"]), triptych.load(bundles / "vae").sample(2, seed=7))


def test_machines_that_give_other_bytes_have_another_fingerprint(bundles):
    one, same = (fingerprint(triptych.load(bundles / "vae")) for _ in range(2))
    other = fingerprint(triptych.load(bundles / "vae", engine="openvino"))
    text = triptych.load(bundles / "text")
    assert one == same
    assert fingerprint(text) == fingerprint(text)
    assert len({one, other, fingerprint(text)}) == 3


def test_a_worker_killed_under_load_costs_no_request(run, bundles, rabbitmq):
    gateway = run("gateway", "--broker", rabbitmq.url, "--port", "0")
    url = gateway.line().split()[-1]
    workers = [
        run("worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "vae")) for _ in range(2)
    ]
    for worker in workers:
        worker.line()
    with httpx.Client(base_url=url, timeout=30) as client:
        until_ready(client)

    async def script(load: Load) -> None:
        workers[0].process.kill()
        await load.answers(200)
        third = run("worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "vae"))
        await asyncio.to_thread(third.line)
        workers[1].process.send_signal(signal.SIGTERM)
        await load.answers(50)
        assert await asyncio.to_thread(workers[1].process.wait, 30) == 0

    asyncio.run(Load(url, bundles / "vae").during(script))


def test_rabbitmq_killed_under_load_loses_no_accepted_request(run, bundles, rabbitmq):
    gateway = run("gateway", "--broker", rabbitmq.url, "--port", "0")
    url = gateway.line().split()[-1]
    worker = run("worker", "--broker", rabbitmq.url, "--workers", "1", str(bundles / "vae"))
    worker.line()
    with httpx.Client(base_url=url, timeout=30) as client:
        until_ready(client)

    async def script(load: Load) -> None:
        await asyncio.to_thread(rabbitmq.kill)
        await asyncio.to_thread(rabbitmq.start)
        before = load.answered - load.refused
        async with asyncio.timeout(40):
            while load.answered - load.refused < before + 100:
                await load.answers(1)

    asyncio.run(Load(url, bundles / "vae").during(script, may_refuse=True))


def test_cut_links_between_machines_cost_no_request_and_heal(run, bundles, rabbitmq, network):
    """The gateway, two workers and RabbitMQ, each in a network of its own; links are cut under load."""
    homes = [network.namespaces[0], network.add(), network.add()]
    links, urls = [], []
    for home in homes:
        link, near, _ = network.lay(home)
        links.append(link)
        urls.append(rabbitmq.url.replace("127.0.0.1", near))
    _, _, front = network.lay(homes[0])  # clients come on a line of their own
    gateway = run("gateway", "--broker", urls[0], "--port", "0", "--host", front, namespace=homes[0])
    url = gateway.line().split()[-1]
    workers = [
        run("worker", "--broker", urls[n], "--workers", "1", str(bundles / "vae"), namespace=homes[n])
        for n in (1, 2)
    ]
    for worker in workers:
        worker.line()
    with httpx.Client(base_url=url, timeout=30) as client:
        until_ready(client)
    took_s: dict[str, float] = {}

    async def script(load: Load) -> None:
        ip("link", "set", links[1], "down")  # one worker is cut off with work in its hands
        await load.answers(100)
        ip("link", "set", links[0], "down")  # and then the gateway, for longer than a link counts as up
        await gateway.until_logged("lost:")
        ip("link", "set", links[0], "up")
        healed_s = time.monotonic()
        await load.answers(100)
        took_s["gateway"] = time.monotonic() - healed_s
        await workers[0].until_logged("lost:")
        before = workers[0].logged("a message came through")
        ip("link", "set", links[1], "up")
        healed_s = time.monotonic()
        await workers[0].until_logged("a message came through", before + 1)
        took_s["worker"] = time.monotonic() - healed_s
        await load.answers(100)

    asyncio.run(Load(url, bundles / "vae").during(script))
    print("seconds from healing to normal:", took_s)
    assert max(took_s.values()) < 15
