"""Kill, stop, overload: what clients and operators see."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from triptych.serve.chaos import saboteur
from triptych.serve.chaos.faults import Fault
from triptych.serve.chaos.load import Load, sample

SABOTEUR = str(Path(saboteur.__file__).parent)


def clients(served) -> Load:
    """Clients that ask for samples without pause, until the block ends or nobody listens."""
    requests = [sample(seed, "vae", n=2) for seed in range(20)]
    return Load(served, itertools.cycle(requests), connections=8, until_refused=True)


def until(what: Callable[[], bool], served) -> None:
    """Ask the server again and again, each time over HTTP, until `what` holds."""
    for _ in range(5000):
        if what():
            return
    raise AssertionError(served.log.read_text())


def test_no_client_notices_that_a_worker_was_killed_under_load(start) -> None:
    served = start("--workers", "2")
    victim = served.workers()[0]["pid"]
    with clients(served) as load:
        load.wait_for(40)
        os.kill(victim, signal.SIGKILL)
        until(lambda: served.workers()[0]["pid"] not in (victim, None), served)
        until(lambda: served.workers()[0]["state"] == "ready", served)
        load.wait_for(40)
    assert load.tally.errors == []
    assert [len(digests) for digests in load.tally.digests().values()] == [1] * 20
    assert served.workers()[0]["restarts"] == 1
    assert 'worker_restarts_total{reason="SIGKILL"} 1.0' in served.client.get("/metrics").text
    assert "SIGKILL" in served.log.read_text()


def test_a_text_goes_on_after_its_worker_was_killed(start) -> None:
    served = start("--workers", "2")
    request = {"model": "text", "prompt": "ab", "max_tokens": 300, "seed": 2, "stream": True}

    def read(kill: bool) -> list[str]:
        texts = []
        with served.client.stream("POST", "/v1/completions", json=request) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    texts.append(line.partition('"text":')[2].partition(',"logprobs"')[0])
                if kill and len(texts) == 5:
                    kill = False
                    busy = next(worker for worker in served.workers() if worker["streams"])
                    os.kill(busy["pid"], signal.SIGKILL)
        assert line or texts
        return texts

    calm = read(kill=False)
    assert read(kill=True) == calm
    assert len(calm) == 300


def test_a_killed_node_comes_back_on_its_port_and_leaves_no_orphans(start) -> None:
    served = start("--workers", "2")
    before = served.sample(n=1, seed=3).content
    workers = [psutil.Process(worker["pid"]) for worker in served.workers()]
    node = workers[0].parent()
    assert node is not None
    node.kill()
    _, alive = psutil.wait_procs([node, *workers], timeout=5)
    assert not alive
    with httpx.Client(
        base_url=served.url, timeout=30
    ) as client:  # waits in the backlog that the root kept open
        answer = client.post(
            "/v1/models/vae/sample", json={"n": 1, "seed": 3}, headers={"accept": "application/x-npy"}
        )
    assert answer.content == before
    assert served.process.poll() is None


def test_a_node_that_ended_in_order_is_replaced_by_one_that_hears(start) -> None:
    served = start("--workers", "1")
    before = served.sample(n=1, seed=3).content
    (node,) = psutil.Process(served.process.pid).children()
    node.terminate()
    node.wait(30)
    with httpx.Client(base_url=served.url, timeout=30) as client:
        answer = client.post(
            "/v1/models/vae/sample", json={"n": 1, "seed": 3}, headers={"accept": "application/x-npy"}
        )
    assert answer.content == before


def test_sigterm_under_load_answers_what_was_accepted_and_exits_with_0(start) -> None:
    served = start("--workers", "1", "--set", "drain.delay_s=0.3")
    children = psutil.Process(served.process.pid).children(recursive=True)
    with clients(served) as load:
        load.wait_for(40)
        text = {"model": "text", "prompt": "ab", "max_tokens": 200, "seed": 2, "stream": True}
        with served.client.stream("POST", "/v1/completions", json=text) as answer:
            lines = answer.iter_lines()
            next(lines)
            served.process.send_signal(signal.SIGTERM)
            load.wait_for(1)
            assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert served.process.wait(30) == 0
    assert load.tally.errors == []
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_a_full_queue_refuses_at_once_and_a_passed_deadline_frees_it(start) -> None:
    served = start("--workers", "1", "--set", "queue.capacity=4", "--set", "queue.batch_size=1")
    worker = served.workers()[0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    try:

        def ask(seed: int) -> httpx.Response:
            headers = {"request-timeout": "2"}
            return served.client.post("/v1/models/vae/sample", json={"seed": seed}, headers=headers)

        with ThreadPoolExecutor(40) as crowd:
            answers = list(crowd.map(ask, range(40)))
        assert {answer.status_code for answer in answers} == {503, 504}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert max(answer.elapsed.total_seconds() for answer in refused) < 1
        ready = served.client.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.elapsed.total_seconds() < 2
    finally:
        os.kill(worker, signal.SIGCONT)
    until(lambda: served.sample(n=1, seed=1).status_code == 200, served)
    until(lambda: served.client.get("/readyz").status_code == 200, served)


def test_a_model_has_a_deadline_of_its_own(start) -> None:
    """That of the other one, and of the same where it is asked for less, is as before."""
    served = start("--workers", "1", "--set", "limits.model_timeouts_s={text=0.2}")
    os.kill(served.workers()[0]["pid"], signal.SIGSTOP)
    text, sample = {"model": "text", "prompt": "a"}, {"n": 1}
    late = served.client.post("/v1/completions", json=text)
    assert (late.status_code, 0.2 <= late.elapsed.total_seconds() < 1.2) == (504, True)
    late = served.client.post("/v1/models/vae/sample", json=sample, headers={"request-timeout": "0.5"})
    assert (late.status_code, 0.5 <= late.elapsed.total_seconds() < 1.5) == (504, True)


def test_a_client_that_leaves_frees_its_slot(start) -> None:
    served = start("--workers", "1", "--set", "limits.tokens=1000000")
    request = {"model": "text", "prompt": "ab", "max_tokens": 1000000, "seed": 2, "stream": True}
    with served.client.stream("POST", "/v1/completions", json=request) as answer:
        lines = answer.iter_lines()  # dropping it would close the connection
        next(lines)
        assert served.workers()[0]["streams"] == 1
    until(lambda: served.workers()[0]["streams"] == 0, served)
    until(lambda: 'cancelled_total{model="text"} 1.0' in served.client.get("/metrics").text, served)


def test_a_slow_header_is_refused(start) -> None:
    served = start("--workers", "1", "--set", "http.header_timeout_s=0.2")
    url = httpx.URL(served.url)
    with socket.create_connection((url.host, url.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/models/vae/sample HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 408 ")


def test_pages_of_other_origins_may_call_only_if_told(served, start) -> None:
    page = {"Origin": "https://example.org"}
    asks = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    sample = "/v1/models/vae/sample"
    assert "access-control-allow-origin" not in served.client.get("/v1/models", headers=page).headers
    assert served.client.options(sample, headers=asks).status_code == 405
    open_to = start(
        "--workers", "1", "--set", 'http.cors_origins=["https://example.org"]', "--set", "http.token=x"
    )
    allowed = open_to.client.options(sample, headers=asks)
    assert (allowed.status_code, allowed.headers["access-control-allow-headers"]) == (204, "content-type")
    refused = open_to.client.get("/v1/models", headers=page)  # no token: a page may read why
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, page["Origin"])
    other = open_to.client.options(sample, headers={**asks, "Origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers


def test_a_token_is_asked_for(start) -> None:
    served = start("--workers", "1", "--set", "http.token=secret")
    assert served.client.get("/v1/models").status_code == 401
    assert served.client.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert served.client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
    assert served.client.get("/v1/models", headers={"authorization": "bearer secret"}).status_code == 200
    assert served.client.get("/v1/models", headers={"authorization": "Basic secret"}).status_code == 401
    assert served.client.get("/livez").status_code == 200


def test_secrets_are_shown_to_nobody_who_asks_for_the_settings(start) -> None:
    url = "amqp://someone:hush@127.0.0.1:9/x"  # nobody answers there
    served = start("--workers", "1", "--broker", url, "--set", "http.token=hush")
    answer = served.client.get("/v2", headers={"authorization": "Bearer hush"})
    assert answer.json()["settings"]["jobs"]["broker"] == "***"
    assert "hush" not in answer.text
    assert "hush" not in served.log.read_text()


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "triptych", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        ([], "no bundle"),
        (["{vae}", "{vae}"], "different names"),
        (["{vae}", "--broker", "kafka://x"], "valid: memory"),
        (["{vae}", "--set", "queue.capcity=3"], "did you mean `capacity`"),
        (["{vae}", "--log", "xml"], "log"),
        (["{vae}", "--workers", "-1"], "workers.count"),
        (["{vae}", "--host", "203.0.113.7"], "cannot listen"),
        (["{vae}", "--config", "missing.toml"], "missing.toml"),
        (["{vae}", "--port", "0", "--set", "workers.engine=abacus"], "abacus"),
        (["{vae}", "--port", "0", "--set", "limits.model_timeouts_s.vea=1"], "did you mean `vae`"),
    ],
)
def test_a_server_that_cannot_start_says_why(bundles: Path, arguments: list[str], said: str) -> None:
    ended = run_serve(*(argument.format(vae=bundles / "vae") for argument in arguments))
    assert ended.returncode == 2
    assert said.lower() in ended.stderr.lower()
    assert ended.stdout == ""


@pytest.mark.parametrize("to_the_group", [False, True])
@pytest.mark.parametrize("awaited", ["triptych.serve.node:main", "triptych.serve.supervise.worker:serve"])
def test_a_server_stopped_while_it_starts_exits_with_0(
    bundles: Path, awaited: str, to_the_group: bool
) -> None:
    command = [sys.executable, "-m", "triptych", "serve", str(bundles / "vae"), "--port", "0"]
    ended = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    root = psutil.Process(ended.pid)
    while not any(awaited in child.cmdline() for child in root.children(recursive=True)):
        pass
    (os.killpg if to_the_group else os.kill)(ended.pid, signal.SIGTERM)
    said = ended.communicate(timeout=30)[1]
    assert (ended.returncode, "Error" in said) == (0, False), said


def test_a_port_in_use_and_a_damaged_bundle_are_named(served, bundles: Path, tmp_path: Path) -> None:
    ended = run_serve(str(bundles / "vae"), "--port", str(httpx.URL(served.url).port))
    assert ended.returncode == 2
    assert "--port" in ended.stderr
    damaged = tmp_path / "vae"
    damaged.mkdir()
    for file in (bundles / "vae").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    ended = run_serve(str(damaged))
    assert ended.returncode == 2
    assert "model.safetensors" in ended.stderr


def objects(log: str) -> list[dict[str, str]]:
    """The lines of a log, each an object with time, level and message."""
    lines = [json.loads(line) for line in log.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    return lines


def test_whatever_is_logged_by_any_process_is_an_object(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SABOTEUR, os.environ.get("PYTHONPATH", "")]))
    served = start("--workers", "1", "--log", "json")
    assert served.sample(seed=int(Fault.RAISE)).status_code == 500
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    found = objects(served.log.read_text())
    assert any("sabotage: the model raises" in line.get("traceback", "") for line in found)


FAILING_TRIAL = """
import sys
if "triptych.serve.trial:main" in sys.orig_argv:
    import triptych.infer
    def load(*_, **__):
        raise RuntimeError("this trial fails")
    triptych.infer.load = load
"""


def test_why_a_server_did_not_start_is_an_object_too(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = run_serve("nowhere", "--log", "json")
    (line,) = objects(ended.stderr)
    assert (ended.returncode, line["level"]) == (2, "critical")
    assert "nowhere" in line["message"]
    (tmp_path / "sitecustomize.py").write_text(FAILING_TRIAL)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    ended = run_serve(str(bundles / "vae"), "--port", "0", "--log", "json", "--set", "workers.precision=auto")
    tried, line = objects(ended.stderr)
    assert "RuntimeError: this trial fails" in tried["traceback"]
    assert (ended.returncode, line["level"]) == (2, "critical")
    assert "could not be tried" in line["message"]


def test_every_setting_is_shown() -> None:
    broker = ("--set", "jobs.broker=amqp://someone:secret@host/")
    shown = run_serve("--print-config", "--set", "http.token=secret", *broker)
    assert shown.returncode == 0
    assert "batch_timeout_s" in shown.stdout
    assert "secret" not in shown.stdout
