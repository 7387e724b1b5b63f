"""Jobs over HTTP: safe once accepted, whoever is killed; the same bytes as the route itself."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from triptych.serve.http.openapi import BODIES

pytestmark = pytest.mark.timeout(120)


def submit(client: httpx.Client, key: str = "", **body: Any) -> httpx.Response:
    return client.post("/v1/jobs", json=body, headers={"idempotency-key": key} if key else {})


def until(client: httpx.Client, url: str, *states: str) -> dict[str, Any]:
    """The job once it is in one of `states`; while the server is away, ask again."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        try:
            answer = client.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.text
        if answer.json()["status"] in states:
            return dict(answer.json())
        time.sleep(0.01)
    raise AssertionError(f"{url} was never {states}")


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " "))


def test_a_sample_is_done_later_and_is_the_same_in_every_form(served):
    request = {"n": 2, "seed": 7}
    accepted = submit(served.client, model="vae", kind="sample", request=request)
    assert accepted.status_code == 202
    url = accepted.headers["location"]
    assert url == f"/v1/jobs/{accepted.json()['id']}"
    job = until(served.client, url, "done")
    assert (job["seed"], job["redelivered"], job["model"]) == (7, 0, "vae")
    for accept in ("application/json", "application/x-npy", "image/png"):
        later = served.client.get(job["result"], headers={"accept": accept})
        now = served.sample(accept, **request)
        assert (later.status_code, later.headers["content-type"]) == (200, accept)
        assert later.content == now.content
    assert served.client.get(job["result"], headers={"accept": "text/html"}).status_code == 406


def test_a_run_and_a_completion_are_jobs_too(served):
    z = [[0.5, -0.5, 1.0, 2.0]]
    run = submit(served.client, model="vae", kind="run", request={"graph": "decode", "inputs": {"z": z}})
    text = {"prompt": "To be", "max_tokens": 5, "seed": 3}
    completion = submit(served.client, model="text", kind="completion", request=text)
    sample = submit(served.client, model="text", request={"n": 1, "seed": 3})
    direct = served.client.post("/v1/models/vae/run/decode", json={"inputs": {"z": z}})
    done = until(served.client, run.headers["location"], "done")
    assert served.client.get(done["result"]).content == direct.content
    npy = served.client.get(done["result"], headers={"accept": "application/x-npy"})
    values = next(iter(direct.json()["outputs"].values()))["values"]
    assert np.array_equal(np.load(io.BytesIO(npy.content)), np.asarray(values, dtype=np.float32))
    done = until(served.client, completion.headers["location"], "done")
    direct = served.client.post("/v1/completions", json={"model": "text", **text})
    made = served.client.get(done["result"]).json()
    assert made["choices"] == direct.json()["choices"]
    assert made["id"] == f"cmpl-{done['id']}"
    done = until(served.client, sample.headers["location"], "done")
    direct = served.client.post("/v1/models/text/sample", json={"n": 1, "seed": 3})
    assert served.client.get(done["result"]).content == direct.content


def test_one_key_is_one_job(served):
    first = submit(served.client, "key-1", model="vae", request={"n": 1})
    again = submit(served.client, "key-1", model="vae", request={"n": 1})
    other = submit(served.client, "key-1", model="vae", request={"n": 2})
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 409
    assert other.json()["error"]["type"] == "conflict"


def test_what_cannot_be_a_job_is_refused_and_what_fails_says_why(served):
    refused = [
        submit(served.client, model="nothing").status_code,
        submit(served.client, model="vae", kind="paint").status_code,
        submit(served.client, model="vae", request={"m": 1}).status_code,
        submit(served.client, model="vae", kind="run", request={"graph": "x", "inputs": {}}).status_code,
        submit(served.client, model="text", kind="completion", request={"stream": True}).status_code,
    ]
    assert refused == [404, 400, 400, 404, 400]
    assert served.client.get("/v1/jobs/nothing").status_code == 404
    failed = submit(served.client, model="vae", request={"n": 100_000})
    job = until(served.client, failed.headers["location"], "failed")
    assert job["error"]["type"] == "invalid_input"
    assert served.client.get(f"{failed.headers['location']}/result").status_code == 409


def test_metrics_have_no_names_but_those_of_models(served):
    for number in range(5):
        assert submit(served.client, model=f"nobody-{number}").status_code == 404
    assert "nobody" not in served.client.get("/metrics").text


def test_a_cancelled_job_has_no_result(served):
    accepted = submit(served.client, model="text", request={"n": 4})
    cancelled = served.client.post(f"{accepted.headers['location']}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["status"] in ("cancelled", "done")
    assert served.client.get(accepted.headers["location"]).json()["status"] == cancelled.json()["status"]


def test_the_document_knows_jobs(served):
    paths = served.client.get("/openapi.json").json()["paths"]
    assert set(paths["/v1/jobs"]) == {"post", "get"}
    assert set(paths["/v1/jobs/{id}"]) == {"get"}
    assert set(paths["/v1/jobs/{id}/cancel"]) == {"post"}
    assert "/v1/jobs" in BODIES
    assert "requestBody" not in paths["/v1/jobs"]["get"]


@pytest.mark.parametrize("victim", ["node", "root"])
def test_every_accepted_job_is_done_whoever_is_killed(start, tmp_path, victim):
    path = str(tmp_path / "jobs.db")
    served = start("--workers", "1", "--jobs", path)
    requests = [{"n": 3, "seed": seed} for seed in range(40)]
    urls = [
        submit(served.client, f"key-{seed}", model="vae", request=request).headers["location"]
        for seed, request in enumerate(requests)
    ]
    urls.append(submit(served.client, model="text", request={"n": 4, "seed": 1}).headers["location"])
    if victim == "node":
        (node,) = psutil.Process(served.process.pid).children()
        os.kill(node.pid, signal.SIGKILL)
    else:
        served.process.kill()
        served.process.wait()
        served = start("--workers", "1", "--jobs", path)
    jobs = [until(served.client, url, "done") for url in urls]
    for job, request in zip(jobs[:5], requests, strict=False):
        result = served.client.get(job["result"], headers={"accept": "application/x-npy"})
        assert result.content == served.sample(**request).content
    again = submit(served.client, "key-0", model="vae", request=requests[0])
    assert again.headers["location"] == urls[0]
    assert metric(served.client, 'triptych_queue_depth{lane="durable"}') == 0
    assert metric(served.client, "triptych_dead_lettered_total") == 0


def test_a_full_store_says_507_and_the_direct_lane_serves(start, tmp_path):
    served = start("--workers", "1", "--jobs", str(tmp_path / "jobs.db"), "--set", "jobs.size_bytes=100000")
    answers = []
    while not answers or (answers[-1].status_code == 202 and len(answers) < 1000):
        answers.append(submit(served.client, model="vae", request={"n": 1}))
    assert {answer.status_code for answer in answers} == {202, 507}
    for answer in answers[:-1]:
        until(served.client, answer.headers["location"], "done")
    assert served.sample(n=1).status_code == 200
    assert "no job can be taken" not in served.log.read_text()


def test_a_store_that_another_process_has_locked_refuses_jobs_in_time_and_harms_nothing_else(start, tmp_path):
    path = tmp_path / "jobs.db"
    served = start("--workers", "1", "--jobs", str(path))
    body = {"model": "vae", "request": {"n": 1}}
    done = submit(served.client, **body)
    until(served.client, done.headers["location"], "done")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        held = submit(served.client, **body)
        assert (held.status_code, held.headers["retry-after"]) == (503, "1")
        late = served.client.post("/v1/jobs", json=body, headers={"request-timeout": "0.2"})
        assert (late.status_code, late.elapsed.total_seconds() < 1.2) == (504, True)
        assert served.client.get("/metrics").status_code == 200
        assert served.sample(n=1).status_code == 200
        other.execute("ROLLBACK")
    again = submit(served.client, **body)
    until(served.client, again.headers["location"], "done")


def test_requeue_speaks_with_the_server(served):
    command = [sys.executable, "-m", "triptych", "requeue", "--url", served.url]
    nothing = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert nothing.stdout == "no dead jobs\n"
    unknown = subprocess.run([*command, "nothing"], capture_output=True, text=True, timeout=60)
    assert (unknown.returncode, "no job `nothing`" in unknown.stderr) == (2, True)


def test_servers_that_share_a_broker_do_each_others_jobs(start, tmp_path, rabbitmq):
    """One is killed with jobs in its hands, with its root: the other does them; it comes back to its own."""
    path, share = str(tmp_path / "first.db"), ("--workers", "1", "--broker", rabbitmq.url)
    first, second = start(*share, "--jobs", path), start(*share)
    urls = [accepted(first.client, model="vae", request={"n": 8, "seed": seed}) for seed in range(60)]
    first.process.kill()
    first.process.wait()
    own = [accepted(second.client, model="vae", request={"n": 2, "seed": seed}) for seed in range(20)]
    for url in own:
        until(second.client, url, "done")
    first = start(*share, "--jobs", path)
    for seed, url in enumerate(urls):
        job = until(first.client, url, "done")
        if seed % 20 == 0:
            result = first.client.get(job["result"], headers={"accept": "application/x-npy"})
            assert result.content == second.sample(n=8, seed=seed).content


def accepted(client: httpx.Client, **body: Any) -> str:
    """Submit until it is accepted: while RabbitMQ is not reached, that is 503."""
    for _ in range(300):
        answer = submit(client, **body)
        if answer.status_code == 202:
            return answer.headers["location"]
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        time.sleep(0.05)
    raise AssertionError(answer.text)
