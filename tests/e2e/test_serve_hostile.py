"""Clients that mean harm, or that are careless: one clear answer each, and everyone else keeps their pace."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

import triptych
from triptych.serve.kserve import Inference, Tensor
from triptych.serve.models import ModelHandler
from triptych.serve.supervise.failure import Failure
from triptych.serve.work import JSON, NPY, InferWork, RunWork, Work

SAMPLE, RUN, COMPLETE = "/v1/models/vae/sample", "/v1/models/vae/run/decode", "/v1/completions"


INFER, IMAGES = "/v2/models/vae/infer", "/v1/images/generations"


def connect(served, receive_bytes: int = 0) -> socket.socket:
    url = httpx.URL(served.url)
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(20)
    connection.connect((url.host, url.port))
    return connection


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"Content-Length: %d" % len(body), b"Content-Type: application/json", *headers]
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b" % (path.encode(), b"\r\n".join(lines), body)


def raw(served, request: bytes) -> tuple[int, bytes]:
    """Send bytes, shut the sending side down, and read what comes until the end."""
    with connect(served) as connection:
        connection.sendall(request)
        status = int(connection.recv(12).split()[1])
        connection.shutdown(socket.SHUT_WR)
        return status, connection.makefile("rb").read()


HUGE = b"1" + b"0" * 400
TENSOR = b'{"inputs": [{"name": "z", "shape": [%b], "datatype": "FP32", "data": [%b]}]}'
BODIES = [
    (SAMPLE, b'{"n": 1, "n": 0}', 400),
    (SAMPLE, b'{"n": %b}' % HUGE, 400),
    (SAMPLE, b'{"n": %b}' % (b"9" * 6000), 400),
    (SAMPLE, b'{"seed": %b}' % HUGE, 400),
    (SAMPLE, b'{"seed": 1e3}', 400),
    (SAMPLE, b'{"\\ud800": 1}', 400),
    (SAMPLE, b"\xef\xbb\xbf{}", 400),
    (SAMPLE, b"null", 400),
    (RUN, b'{"inputs": {"z": %b1%b}}' % (b"[" * 31, b"]" * 31), 400),
    (RUN, b'{"inputs": {"z": {"a": 1}}}', 400),
    (RUN, b'{"inputs": {"z": null}}', 400),
    (RUN, b'{"inputs": "z"}', 400),
    (RUN, b'{"inputs": {"z": [[%b, 1, 1, 1]]}}' % HUGE, 400),
    (RUN, b'{"inputs": {"z": [[1e400, 1, 1, 1]]}}', 400),
    (RUN, b'{"inputs": {"z": [["\xff", 1, 1, 1]]}}', 400),
    (INFER, b'{"parameters": {"timeout": %b}}' % HUGE, 400),
    (INFER, TENSOR % (b"1, %b" % HUGE, b"0"), 400),
    (INFER, TENSOR % (b"1, %d" % 2**70, b"0"), 400),
    (INFER, TENSOR % (b"1, 4", b"1e400, 1, 1, 1"), 400),
    (INFER, TENSOR % (b"1, 4", b'"\xff", 1, 1, 1'), 400),
    (COMPLETE, b'{"model": "text", "logit_bias": {"%b": 1}}' % (b"9" * 20), 400),
    (COMPLETE, b'{"model": "text", "logit_bias": {"-1": 1}}', 400),
    (COMPLETE, b'{"model": "text", "prompt": [[1], [2]], "n": %b}' % (b"9" * 4300), 400),
    (COMPLETE, b'{"model": "text", "prompt": [[1], [2]], "best_of": %b}' % (b"9" * 4300), 400),
    (COMPLETE, b'{"model": "text", "prompt": [%b]}' % HUGE, 400),
    (COMPLETE, b'{"model": "text", "prompt": [[-1]]}', 400),
    (COMPLETE, b'{"model": "text", "prompt": "a", "top_k": %b}' % HUGE, 400),
    (COMPLETE, b'{"model": "text", "prompt": "a", "max_tokens": %b}' % HUGE, 400),
    (COMPLETE, b'{"model": "text", "prompt": "\\ud800"}', 400),
    (COMPLETE, b'{"model": "text", "prompt": "a", "temperature": 1e-300}', 200),
    (COMPLETE, b'{"model": "text", "prompt": "a", "suffix": null, "logit_bias": null}', 200),
]


LONG, BIASES = b"te" * 45_000, b",".join(b'"%d": 1' % token for token in range(8000))


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (SAMPLE, b"[" * 40 + b'"' + b'\\"' * 40_000, {}),
        (SAMPLE, b'{"%b": 1}' % LONG, {}),
        (SAMPLE, b'{"condition": "%b"}' % LONG, {}),
        (COMPLETE, b'{"model": "%b"}' % LONG, {}),
        (COMPLETE, b'{"model": "text", "prompt": "%b", "n": 2}' % LONG, {}),
        (COMPLETE, b'{"model": "text", "logit_bias": {%b}}' % BIASES, {}),
        ("/v1/jobs", b'{"model": "%b"}' % LONG, {}),
        (INFER, b"{}", {"inference-header-content-length": "9" * 5000}),
        (IMAGES, b'{"model": "vae", "prompt": "%b"}' % (b"9" * 5000), {}),
    ],
    ids=range(9),
)
def test_a_body_meant_to_keep_the_server_busy_gets_a_short_no_at_once(served, path, body, headers) -> None:
    headers = {"content-type": "application/json", **headers}
    answer = served.client.post(path, content=body, headers=headers, timeout=2)
    assert answer.status_code in (400, 404), answer.text[:200]
    assert len(answer.content) < 5000


def test_a_body_that_unpacks_to_more_than_the_limit_is_refused_before_it_does(served) -> None:
    for packed, coding, status in (
        (gzip.compress(bytes(2**26)), "gzip", 413),
        (gzip.compress(b"{}")[:-3], "gzip", 400),
        (b"{}", "gzip", 400),
        (b"{}", "br", 415),
        (gzip.compress(b'{"n": 1}'), "gzip", 200),
    ):
        headers = {"content-type": "application/json", "content-encoding": coding}
        assert served.client.post(SAMPLE, content=packed, headers=headers).status_code == status


def test_npy_rows_are_those_of_its_header_and_no_output_is_asked_for_twice(served) -> None:
    shapes = "'shape': (1, 4), 'descr': '<f4', 'fortran_order': False, 'shape': (300, 4)"
    header = f"{{{shapes}}}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(300 * 16)
    answer = served.client.post(RUN, content=body, headers={"content-type": "application/x-npy"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "body")
    z = {"name": "z", "shape": [1, 4], "datatype": "FP32", "data": [0] * 4}
    answer = served.client.post(INFER, json={"inputs": [z], "outputs": [{"name": "x"}] * 2})
    assert (answer.status_code, "outputs" in answer.json()["error"]) == (400, True)


@pytest.mark.parametrize(("path", "body", "status"), BODIES)
def test_strange_bodies_are_never_an_internal_error(served, path: str, body: bytes, status: int) -> None:
    answer = served.client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert "Traceback" not in answer.text


def test_numbers_and_texts_that_cannot_be_read_are_refused_alone_in_their_batch(bundles: Path) -> None:
    rows = [b'{"z": [[1, 1, 1, 1]]}', b'{"z": [[1e400, 1, 1, 1]]}', b'{"z": [["\xff", 1, 1, 1]]}']
    works: list[Work] = [RunWork("vae", "decode", JSON, body, NPY, 1) for body in rows]
    for values in (b"1, 1, 1, 1", b"1e400, 1, 1, 1", b'"\xff", 1, 1, 1'):
        tensor = Tensor("z", [1, 4], "FP32", b"[%b]" % values, True)
        works.append(InferWork("vae", "decode", Inference("", [tensor], ["x"], [True])))
    with triptych.load(bundles / "vae", threads=1) as engine:
        answers = ModelHandler({"vae": engine}).handle_batch([msgspec.msgpack.encode(work) for work in works])
    assert [answer.type if isinstance(answer, Failure) else "" for answer in answers] == [
        "", "InputError", "InputError", "", "InputError", "InputError",
    ]  # fmt: skip
    assert [answer.where for answer in answers if isinstance(answer, Failure)] == ["inputs"] * 2 + ["z"] * 2


LINES = [
    (b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n", 200),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    (post("/v1/models/../../etc/passwd/sample", b"{}"), 404),
    (post("/v1/models/%2e%2e%2fetc/sample", b"{}"), 404),
    (post("/v1/models/%00/sample", b"{}"), 404),
    (post("/v1/models/%ff%fe/sample", b"{}"), 404),
    (post("/v1/models/%zz/sample", b"{}"), 404),
    (post("/v1/models//sample", b"{}"), 404),
    (post(SAMPLE, b"{}", b"Accept: " + b"*" * 60 + b"x"), 406),
    (post(SAMPLE, b"{}", b"Accept: ;;q=,,*/"), 406),
    (post(SAMPLE, b"{}", b"Request-Timeout: nan"), 400),
    (post(SAMPLE, b"{}", "Request-Timeout: \u0663".encode()), 400),
    (post(SAMPLE, b"{}", b"Request-Timeout: 1e-9"), 504),
    (post(SAMPLE, b"{}", b"Transfer-Encoding: chunked"), 400),
    (post(SAMPLE, b"{}", b"Content-Length: 2"), 400),
    (b"POST " + SAMPLE.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"POST " + SAMPLE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: -2\r\n\r\n", 400),
    (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 431),
    (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20000 + b"\r\n", 431),
    (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    (b"\x16\x03\x01\x02\x00\x01", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
]


@pytest.mark.parametrize(("request_bytes", "status"), LINES, ids=range(len(LINES)))
def test_strange_requests_get_one_answer(served, request_bytes: bytes, status: int) -> None:
    got, rest = raw(served, request_bytes)
    assert got == status, rest
    assert b"Traceback" not in rest
    assert served.client.get("/livez", timeout=2).status_code == 200


def test_chunked_and_pipelined_requests_are_answered_in_order(served) -> None:
    seeds = b"".join(post(SAMPLE, b'{"seed": %d}' % seed) for seed in (5, 6, 7))
    chunked = post(SAMPLE, b"", b"Transfer-Encoding: chunked", b"Connection: close")
    chunked = chunked.replace(b"Content-Length: 0\r\n", b"") + b'b\r\n{"seed": 8}\r\n0\r\n\r\n'
    with connect(served) as connection:
        connection.sendall(seeds + chunked)
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    positions = [answers.index(b"triptych-seed: %d" % seed) for seed in (5, 6, 7, 8)]
    assert positions == sorted(positions)


def test_curl_s_form_type_is_told_its_remedy(served) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = served.client.post(SAMPLE, content=b'{"n": 1}', headers=form)
    assert answer.status_code == 415
    assert "-H 'Content-Type: application/json'" in answer.json()["error"]["hint"]


def test_readiness_names_each_worker_and_holds_while_one_computes(start) -> None:
    served = start("--workers", "2")
    assert served.client.get("/readyz").json()["workers"] == {"0": "ok", "1": "ok"}
    first, second = (worker["pid"] for worker in served.workers())
    os.kill(first, signal.SIGSTOP)
    started_s = time.monotonic()
    ready = served.client.get("/readyz")
    assert (ready.status_code, ready.json()["workers"]) == (200, {"0": "late", "1": "ok"})
    assert time.monotonic() - started_s < 2
    os.kill(second, signal.SIGSTOP)
    assert served.client.get("/readyz").status_code == 503
    os.kill(first, signal.SIGCONT)
    os.kill(second, signal.SIGCONT)
    while served.client.get("/readyz").json()["workers"] != {"0": "ok", "1": "ok"}:
        pass


def test_a_hung_worker_is_killed_and_its_request_answered_by_another(start) -> None:
    served = start("--workers", "2", "--set", "workers.hang_timeout_s=0.5")
    wanted = served.sample(seed=3).content
    stopped = served.workers()[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(16) as crowd:
        assert set(crowd.map(lambda _: served.sample(seed=3).content, range(64))) == {wanted}
    while served.workers()[0]["pid"] in (stopped, None) or served.workers()[0]["state"] != "ready":
        pass
    assert "silent for 0.5 s" in served.log.read_text()


POISON = """
import os, sys
if "triptych.serve.supervise.child" in sys.orig_argv:
    import triptych.infer.engine as engine
    sample_rows = engine.Engine.sample_rows
    def deadly(self, seeds, indices, *more, **options):
        if 666 in seeds:
            os.abort()
        return sample_rows(self, seeds, indices, *more, **options)
    engine.Engine.sample_rows = deadly
"""


def test_an_input_that_kills_its_worker_is_refused_and_its_neighbours_are_answered(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(POISON)  # the worker dies of seed 666, for real
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    served = start("--workers", "1", "--set", "queue.batch_timeout_s=0.1")
    wanted = [served.sample(seed=seed).content for seed in range(8)]
    with ThreadPoolExecutor(9) as crowd:
        poison = crowd.submit(served.sample, seed=666)
        others = list(crowd.map(lambda seed: served.sample(seed=seed).content, range(8)))
    assert others == wanted
    assert poison.result().status_code == 500
    assert "died of it" in poison.result().json()["error"]["message"]
    assert "escalated" not in served.log.read_text()
    assert served.sample(seed=0).content == wanted[0]


def test_a_queued_request_whose_client_leaves_gives_up_its_place(start) -> None:
    served = start("--workers", "1", "--set", "queue.batch_size=1", "--set", "queue.capacity=8")
    worker = served.workers()[0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    connections = [connect(served) for _ in range(10)]
    for connection in connections:
        connection.sendall(post(SAMPLE, b"{}"))
    while served.client.get("/healthz").json()["queue"]["depth"] < 5:
        pass
    for connection in connections:
        connection.close()
    while served.client.get("/healthz").json()["queue"]["depth"] > 0:
        pass
    os.kill(worker, signal.SIGCONT)
    assert served.sample(seed=1).status_code == 200


def test_clients_that_hold_every_descriptor_keep_nobody_out_and_no_worker_from_its_place(start) -> None:
    served = start("--workers", "1", "--set", "http.connections=60")
    (node,) = psutil.Process(served.process.pid).children()
    _, most = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (node.num_fds() + 90, most))
    wanted = served.sample(seed=3).content
    idle = [connect(served) for _ in range(300)]
    for connection in idle:
        with suppress(OSError):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    os.kill(served.workers()[0]["pid"], signal.SIGKILL)
    assert served.sample(seed=3).content == wanted
    assert psutil.Process(served.process.pid).children() == [node]
    for connection in idle:
        connection.close()


def test_a_slow_body_is_refused_and_counted_under_its_model(served) -> None:
    counted = 'requests_total{code="408",model="vae"}'
    assert counted not in served.client.get("/metrics").text
    head = post(SAMPLE, b"", b"Request-Timeout: 0.3").replace(b"Content-Length: 0", b"Content-Length: 9")
    with connect(served) as connection:
        connection.sendall(head + b'{"n"')
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 408 ")
    assert f"{counted} 1.0" in served.client.get("/metrics").text


def test_a_reader_that_never_reads_is_cut_off_and_others_keep_their_pace(start) -> None:
    served = start("--workers", "1", "--set", "limits.tokens=10000000", "--set", "http.write_timeout_s=0.3")
    body = b'{"model": "text", "prompt": "ab", "max_tokens": 600000, "n": 15, "stream": true, "logprobs": 0}'
    with connect(served, receive_bytes=4096) as connection:
        connection.sendall(post(COMPLETE, body))
        while served.workers()[0]["streams"] < 15:
            pass
        over = threading.Event()
        while served.workers()[0]["streams"]:
            request = {"model": "text", "prompt": "a", "max_tokens": 2}
            assert served.client.post(COMPLETE, json=request, timeout=5).status_code == 200
            assert not over.wait(0.02)
    assert served.client.get("/healthz").json()["queue"]["depth"] == 0
