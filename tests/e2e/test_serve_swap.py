"""Swaps under load: no error for anyone, one version per answer, and nothing changes for a bad bundle."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

import triptych


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two versions of a bundle named `vae`."""
    from triptych.learn import VAE
    from triptych.learn.export import export
    from triptych.learn.train import rng

    made = []
    for number in range(2):
        rng.seed_all(number)
        folder = tmp_path_factory.mktemp(f"version-{number}") / "vae"
        export(VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(16,), latent_dim=4)), folder)
        made.append(folder)
    return made


@pytest.fixture
def place(versions: list[Path], tmp_path: Path) -> Path:
    """Where the server looks for its bundle."""
    shutil.copytree(versions[0], tmp_path / "vae")
    return tmp_path / "vae"


def put(bundle: Path, place: Path) -> None:
    """Another bundle in its place, as an operator would: by renaming folders."""
    fresh, old = place.with_name("fresh"), place.with_name("old")
    shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(bundle, fresh)
    place.rename(old)
    fresh.rename(place)


class Clients:
    """Threads that ask for samples until told to stop; `answers`: (version in header, in body, samples)."""

    def __init__(self, url: str, count: int = 6) -> None:
        self._url, self._stop = url, threading.Event()
        self.answers: list[tuple[str, str, bytes]] = []
        self.errors: list[str] = []
        self._came = threading.Condition()
        self._threads = [threading.Thread(target=self._live) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        with self._came:
            goal = len(self.answers) + more
            assert self._came.wait_for(lambda: len(self.answers) >= goal or bool(self.errors), timeout=60)

    def _live(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                answer = client.post("/v1/models/vae/sample", json={"n": 2, "seed": 7})
                with self._came:
                    if answer.status_code == 200:
                        body = answer.json()
                        samples = np.array(body["samples"], np.float32).tobytes()
                        self.answers.append((answer.headers["triptych-version"], body["version"], samples))
                    else:
                        self.errors.append(answer.text)
                    self._came.notify_all()


def swap(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triptych", "swap", "--url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def sampled(bundle: Path) -> bytes:
    return bytes(triptych.load(bundle).sample(2, seed=7).tobytes())


@pytest.fixture
def server(serve: Any, place: Path) -> Any:
    return serve(str(place), "--workers", "2")


def test_a_swap_under_load_is_seen_by_nobody_and_no_answer_mixes_versions(server, place, versions) -> None:
    wanted = {triptych.load(bundle).manifest.version: sampled(bundle) for bundle in versions}
    old, new = wanted
    pids = {worker["pid"] for worker in server.workers()}
    with Clients(server.url) as clients:
        clients.wait_for(30)
        put(versions[1], place)
        done = swap(server.url, "vae")
        assert (done.returncode, done.stdout.split()) == (0, ["vae", new])
        after = len(clients.answers)
        clients.wait_for(30)
    assert clients.errors == []
    assert {version for version, _, _ in clients.answers} == {old, new}
    assert all(head == body and samples == wanted[head] for head, body, samples in clients.answers)
    assert {version for version, _, _ in clients.answers[after + 6 :]} == {new}
    assert not pids & {worker["pid"] for worker in server.workers()}
    psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert server.client.get("/healthz").json()["models"] == {"vae": new}


def test_a_swap_frees_a_server_whose_workers_could_not_come_back(server, place, versions) -> None:
    """They were killed after their bundle had been replaced: what they had accepted keeps nobody waiting."""
    sample, new = "/v1/models/vae/sample", triptych.load(versions[1]).manifest.version
    put(versions[1], place)
    for worker in server.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    while len(server.client.get("/readyz").json()["reasons"]) < 2:
        pass
    with ThreadPoolExecutor(8) as crowd:
        waiting = [crowd.submit(server.client.post, sample, json={"n": 1}) for _ in range(8)]
        while "triptych_in_progress 9.0" not in server.client.get("/metrics").text:
            pass
        assert swap(server.url).returncode == 0
        fresh = server.client.post(sample, json={"n": 1}, headers={"request-timeout": "5"})
        assert (fresh.status_code, fresh.headers["triptych-version"]) == (200, new)
        refused = [answer.result() for answer in waiting]
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)


def test_a_job_that_comes_again_after_a_swap_is_the_first_one(server, place, versions) -> None:
    body = {"model": "vae", "kind": "sample", "request": {"n": 2, "seed": 7}}
    named = {"idempotency-key": "order-17"}
    first = server.client.post("/v1/jobs", json=body, headers=named)
    put(versions[1], place)
    assert swap(server.url).returncode == 0
    again = server.client.post("/v1/jobs", json=body, headers=named)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    other = {**body, "request": {"n": 3, "seed": 7}}
    assert server.client.post("/v1/jobs", json=other, headers=named).status_code == 409


def test_a_job_accepted_before_a_swap_and_done_after_it_says_whose_its_result_is(
    server, place, versions
) -> None:
    old, new = (triptych.load(bundle).manifest.version for bundle in versions)
    put(versions[1], place)
    for worker in server.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    while len(server.client.get("/readyz").json()["reasons"]) < 2:
        pass
    job = {"model": "vae", "kind": "sample", "request": {"n": 2, "seed": 7}}
    accepted = server.client.post("/v1/jobs", json=job)
    assert (accepted.status_code, accepted.headers["triptych-version"]) == (202, old)
    assert swap(server.url).returncode == 0
    while server.client.get(accepted.headers["location"]).json()["status"] != "done":
        pass
    for accept in ("application/x-npy", "application/json"):
        made = server.client.get(f"{accepted.headers['location']}/result", headers={"accept": accept})
        assert made.headers["triptych-version"] == new
        direct = server.client.post("/v1/models/vae/sample", json=job["request"], headers={"accept": accept})
        assert (made.status_code, made.content) == (200, direct.content)


def test_the_same_bundle_again_is_a_rolling_restart(server) -> None:
    before = server.workers()
    with Clients(server.url) as clients:
        clients.wait_for(10)
        assert swap(server.url).returncode == 0
        clients.wait_for(10)
    assert clients.errors == []
    assert len({samples for _, _, samples in clients.answers}) == 1
    assert {worker["pid"] for worker in before} != {worker["pid"] for worker in server.workers()}


def test_a_damaged_bundle_is_refused_by_name_and_the_old_one_goes_on(server, place, versions) -> None:
    put(versions[1], place)
    weights = place / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with Clients(server.url) as clients:
        clients.wait_for(10)
        refused = swap(server.url)
        clients.wait_for(10)
    assert refused.returncode == 2
    assert "model.safetensors" in refused.stderr
    assert clients.errors == []
    assert {samples for _, _, samples in clients.answers} == {sampled(versions[0])}
    assert "swap refused" in server.log.read_text()
    put(versions[1], place)
    assert swap(server.url).returncode == 0


def test_a_bundle_that_is_gone_is_refused_and_the_old_one_goes_on(server, place) -> None:
    os.remove(place / "manifest.json")
    answer = server.client.post("/v2/repository/models/vae/load")
    assert answer.status_code == 409
    assert "manifest.json" in answer.json()["error"]
    assert server.sample(seed=1).status_code == 200


def test_an_unknown_model_and_a_server_that_is_not_there_are_named(server) -> None:
    assert "there is no model `vea`" in swap(server.url, "vea").stderr
    gone = swap("http://127.0.0.1:9")
    assert gone.returncode == 2
    assert "name a running server with --url" in gone.stderr.lower()
