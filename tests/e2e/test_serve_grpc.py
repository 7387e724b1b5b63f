"""The V2 inference protocol over gRPC: `tritonclient.grpc` against a real server, and beside HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

import triptych

ON = ("--set", "grpc.port=0")
SAMPLE = {"n": 2, "seed": 7}


def address(served: Any) -> str:
    """Where it answers gRPC: the second line that it says."""
    return str(served.process.stdout.readline().rpartition("//")[2].strip())


@pytest.fixture(scope="module")
def both(serve: Callable[..., Any], bundles: Path) -> Any:
    """A server for all tests that leave it as they found it."""
    more = ("--workers", "2", "--set", "limits.body_bytes=100000")
    served = serve(str(bundles / "vae"), str(bundles / "text"), *more, *ON)
    served.address = address(served)
    return served


@pytest.fixture(scope="module")
def client(both: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(both.address) as client:
        yield client


@pytest.fixture(scope="module")
def http(both: Any) -> Iterator[Any]:
    with triton_http.InferenceServerClient(both.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture(scope="module")
def stub(both: Any) -> Iterator[Any]:
    """Calls without the client's conveniences."""
    with grpc.insecure_channel(both.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def latents(rows: int = 3) -> np.ndarray:
    return np.linspace(-1, 1, 4 * rows, dtype=np.float32).reshape(rows, 4)


def tensor(name: str, values: np.ndarray, datatype: str = "FP32", of: Any = triton) -> Any:
    made = of.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def sampling(**parameters: int) -> Any:
    request = pb.ModelInferRequest(model_name="vae")
    for name, value in (parameters or SAMPLE).items():
        request.parameters[name].int64_param = value
    return request


def until(what: Callable[[], bool], served: Any) -> None:
    for _ in range(5000):
        if what():
            return
    raise AssertionError(served.log.read_text())


def counted(served: Any, *names: str) -> int:
    """The sum of these series, as the server's page has them."""
    lines = served.client.get("/metrics").text.splitlines()
    found = dict(line.rpartition(" ")[::2] for line in lines)
    return int(sum(float(found.get(name, 0)) for name in names))


def test_the_server_and_its_models_say_what_they_are(client, both) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("vae")
    assert client.get_server_metadata().name == "triptych"
    about = client.get_model_metadata("vae")
    assert client.is_model_ready("vae", about.versions[0])
    (z,), (x,) = about.inputs, about.outputs
    assert (z.name, z.datatype, list(z.shape)) == ("z", "FP32", [-1, 4])
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, 1, 8, 8])
    listed = client.get_model_repository_index().models
    assert {(model.name, model.state) for model in listed} == {("vae", "READY"), ("text", "READY")}
    port = int(both.address.rpartition(":")[2])
    assert both.client.get("/v2").json()["settings"]["grpc"] == {"port": port}
    assert f"gRPC at {both.address}" in both.log.read_text()


def test_a_graph_run_has_the_bytes_of_http_and_of_the_engine(client, http, stub, bundles: Path) -> None:
    z = latents()
    wanted = triptych.load(bundles / "vae").run("decode", {"z": z})["x"]
    asked = [triton.InferRequestedOutput("x")]
    answer = client.infer("vae", [tensor("z", z)], outputs=asked, request_id="seven")
    assert answer.as_numpy("x").tobytes() == wanted.tobytes()
    assert (answer.get_response().id, answer.get_response().model_name) == ("seven", "vae")
    over_http = http.infer("vae", [tensor("z", z, of=triton_http)]).as_numpy("x")
    assert over_http.tobytes() == wanted.tobytes()
    typed = pb.ModelInferRequest(model_name="vae")
    part = typed.inputs.add(name="z", datatype="FP32", shape=[3, 4])
    part.contents.fp32_contents.extend(z.ravel())
    assert stub.ModelInfer(typed).raw_output_contents == [wanted.tobytes()]


def test_inputs_name_the_graph_and_a_parameter_settles_it(client, bundles: Path) -> None:
    x = np.full((2, 1, 8, 8), 0.25, np.float32)
    wanted = triptych.load(bundles / "vae").run("encode", {"x": x})
    for more in ({}, {"parameters": {"graph": "encode"}}):
        answer = client.infer("vae", [tensor("x", x)], **more)
        assert all(np.array_equal(answer.as_numpy(name), values) for name, values in wanted.items())


def test_samples_are_the_engine_s(client, bundles: Path) -> None:
    answer = client.infer("vae", [], parameters={"n": 5, "seed": 7})
    assert np.array_equal(answer.as_numpy("samples"), triptych.load(bundles / "vae").sample(5, seed=7))
    assert answer.get_response().parameters["seed"].int64_param == 7


def test_texts_are_continued(client, bundles: Path) -> None:
    prompts = np.array([b"to be", b"caf"], dtype=np.object_)
    settings = {"max_tokens": 8, "seed": 3, "temperature": 0.5}
    parameters = {**settings, "logit_bias": '{"5": -1.5}'}
    answer = client.infer("text", [tensor("text_input", prompts, "BYTES")], parameters=parameters)
    engine = triptych.load(bundles / "text")
    wanted = [engine.generate(p, **settings, logit_bias={5: -1.5}).text for p in ("to be", "caf")]
    assert [text.decode() for text in answer.as_numpy("text_output")] == wanted


@pytest.mark.parametrize(
    ("inputs", "more", "code"),
    [
        (["q", latents()], {}, "INVALID_ARGUMENT"),
        (["z", latents().astype(np.float64), "FP64"], {}, "INVALID_ARGUMENT"),
        (["z", latents()[:, :3]], {}, "INVALID_ARGUMENT"),
        (["z", latents(300)], {}, "INVALID_ARGUMENT"),
        (["z", latents()], {"parameters": {"graph": "decoder"}}, "NOT_FOUND"),
        (["z", latents()], {"parameters": {"warmth": 1}}, "INVALID_ARGUMENT"),
        (["z", latents()], {"model_version": "9"}, "NOT_FOUND"),
        (["z", latents()], {"model_name": "vea"}, "NOT_FOUND"),
        ([], {"parameters": {"n": 0}}, "INVALID_ARGUMENT"),
        ([], {"parameters": {"n": True}}, "INVALID_ARGUMENT"),
        ([], {"parameters": {"seed": "seven"}}, "INVALID_ARGUMENT"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_http(client, http, inputs, more, code: str) -> None:
    said = []
    for speaker, of in ((client, triton), (http, triton_http)):
        asked = {"model_name": "vae", "inputs": [tensor(*inputs, of=of)] if inputs else [], **more}
        with pytest.raises(InferenceServerException) as caught:
            speaker.infer(**asked)
        said.append(caught.value)
    assert said[0].status() == f"StatusCode.{code}"
    assert said[0].message() == said[1].message()


def test_what_only_grpc_can_get_wrong_is_said_too(stub, client) -> None:
    z = {"name": "z", "datatype": "FP32", "shape": [1, 4]}
    four = [1.0] * 4
    wrong = {
        "raw_input_contents: are 2; valid: 1": ([z], [b"\0" * 16] * 2),
        "does not go with raw": ([{**z, "contents": {"fp32_contents": four}}], [b"\0" * 16]),
        "valid: fp32_contents": ([{**z, "contents": {"fp64_contents": four}}], []),
        "do not fill shape": ([{**z, "contents": {"fp32_contents": four[1:]}}], []),
        "got FP8": ([{**z, "datatype": "FP8"}], []),
    }
    for said, (inputs, raw) in wrong.items():
        request = pb.ModelInferRequest(
            model_name="vae",
            inputs=[pb.ModelInferRequest.InferInputTensor(**fields) for fields in inputs],
            raw_input_contents=raw,
        )
        with pytest.raises(grpc.RpcError, match=said) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for call in (client.get_model_config, client.unload_model, client.get_inference_statistics):
        with pytest.raises(InferenceServerException, match="Method not found"):
            call("vae")
    with pytest.raises(InferenceServerException, match="there is no model `vae%2Fready`"):
        client.get_model_metadata("vae/ready")


def test_a_message_that_is_too_large_or_packed_is_refused(client) -> None:
    with pytest.raises(InferenceServerException, match="larger than max") as caught:
        client.infer("vae", [tensor("z", latents(200_000))])
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    with pytest.raises(InferenceServerException, match="'gzip' is disabled") as caught:
        client.infer("vae", [tensor("z", latents())], compression_algorithm="gzip")
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_an_answer_says_what_it_is_called_where_it_comes_from_and_is_counted(stub, both, client) -> None:
    version = client.get_model_metadata("vae").versions[0]
    _, call = stub.ModelInfer.with_call(sampling(), metadata=[("x-request-id", "order-7")])
    told = dict(call.trailing_metadata())
    assert (told["x-request-id"], told["triptych-version"], told["triptych-seed"]) == (
        "order-7",
        version,
        "7",
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(sampling(n=0), metadata=[("x-request-id", "order-8")])
    assert dict(caught.value.trailing_metadata())["x-request-id"] == "order-8"
    for code in (200, 400):
        assert counted(both, f'triptych_requests_total{{code="{code}",model="vae"}}') > 0
    assert counted(both, "triptych_in_progress") == 1  # the one that asks


def test_a_token_is_asked_for(start) -> None:
    served = start("--workers", "1", "--set", "http.token=secret", *ON)
    with triton.InferenceServerClient(address(served)) as client:
        assert client.is_server_ready()
        for headers in ({}, {"authorization": "Bearer wrong"}):
            for call in (client.get_server_metadata, client.get_model_repository_index):
                with pytest.raises(InferenceServerException, match="no valid token") as caught:
                    call(headers=headers)
                assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
        allowed = {"authorization": "Bearer secret"}
        assert client.infer("vae", [], parameters=SAMPLE, headers=allowed).as_numpy("samples").shape[0] == 2


def test_a_full_queue_refuses_at_once_and_passed_deadlines_and_cancelled_calls_free_it(start) -> None:
    limits = ("--set", "queue.capacity=4", "--set", "queue.batch_size=1", "--set", "drain.shutdown_s=5")
    served = start("--workers", "1", *limits, *ON)
    worker = served.workers()[0]["pid"]
    with grpc.insecure_channel(address(served)) as channel, ThreadPoolExecutor(40) as crowd:
        stub = GRPCInferenceServiceStub(channel)
        os.kill(worker, signal.SIGSTOP)
        try:

            def ask(_: int) -> Any:
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(sampling(), timeout=2)
                return caught.value

            errors = list(crowd.map(ask, range(40)))
            codes = {error.code() for error in errors}
            assert codes == {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
            for error in errors:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    told = dict(error.trailing_metadata())
                    assert int(told["grpc-retry-pushback-ms"]) == 1000 * int(told["retry-after"]) > 0
            late = sum(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED for error in errors)
            ended = [f'triptych_{how}_total{{model="vae"}}' for how in ("expired", "cancelled")]
            until(lambda: counted(served, *ended) == late, served)
            assert counted(served, ended[0]) > 0
            waiting = [stub.ModelInfer.future(sampling()) for _ in range(4)]
            until(lambda: counted(served, "triptych_in_progress") == 5, served)  # and the one that asks
            for call in waiting:
                call.cancel()
            until(lambda: counted(served, *ended) == late + 4, served)
            assert counted(served, 'triptych_queue_depth{lane="direct"}') == 0
            assert not stub.ServerReady(pb.ServerReadyRequest()).ready
        finally:
            os.kill(worker, signal.SIGCONT)
        until(lambda: stub.ServerReady(pb.ServerReadyRequest()).ready, served)
        assert stub.ModelInfer(sampling()).model_name == "vae"


def test_a_call_without_a_deadline_has_the_server_s(start) -> None:
    served = start("--workers", "1", "--set", "limits.request_timeout_s=0.5", *ON)
    os.kill(worker := served.workers()[0]["pid"], signal.SIGSTOP)
    try:
        with (
            triton.InferenceServerClient(address(served)) as client,
            pytest.raises(InferenceServerException, match="deadline passed") as caught,
        ):
            client.infer("vae", [], parameters=SAMPLE)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    finally:
        os.kill(worker, signal.SIGCONT)


class Callers:
    """Threads that ask for the same samples, each over a connection of its own, until told to stop, or until
    one of them is refused.

    Attributes:
        answers: (version, bytes) of each answer.
        refusals: those that had the code UNAVAILABLE.
        errors: all other ones.
    """

    def __init__(self, address: str, count: int = 6) -> None:
        self.answers: list[tuple[str, bytes]] = []
        self.refusals: list[str] = []
        self.errors: list[str] = []
        self._address, self._stop, self._came = address, threading.Event(), threading.Condition()
        self._threads = [threading.Thread(target=self._live) for _ in range(count)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        with self._came:
            goal = len(self.answers) + more
            assert self._came.wait_for(lambda: len(self.answers) >= goal or bool(self.errors), timeout=60)

    def _live(self) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        with triton.InferenceServerClient(self._address, channel_args=own) as client:
            while not (self._stop.is_set() or self.refusals):
                try:
                    answer = client.infer("vae", [], parameters=SAMPLE)
                    version = answer.get_response().model_version
                    made: Any = (version, answer.as_numpy("samples").tobytes())
                    kind: list[Any] = self.answers
                except InferenceServerException as error:
                    made = str(error)
                    kind = self.refusals if error.status() == "StatusCode.UNAVAILABLE" else self.errors
                with self._came:
                    kind.append(made)
                    self._came.notify_all()


def test_no_caller_notices_that_a_worker_was_killed_under_load(start, bundles: Path) -> None:
    served = start("--workers", "2", *ON)
    victim = served.workers()[0]["pid"]
    with Callers(address(served)) as callers:
        callers.wait_for(40)
        os.kill(victim, signal.SIGKILL)
        until(lambda: served.workers()[0]["pid"] not in (victim, None), served)
        until(lambda: served.workers()[0]["state"] == "ready", served)
        callers.wait_for(40)
    assert callers.errors + callers.refusals == []
    wanted = triptych.load(bundles / "vae").sample(**SAMPLE).tobytes()
    assert {samples for _, samples in callers.answers} == {wanted}


def test_a_swap_under_load_is_seen_by_no_caller(start) -> None:
    served = start("--workers", "1", *ON)
    before = served.workers()[0]["pid"]
    with Callers(where := address(served)) as callers, triton.InferenceServerClient(where) as client:
        callers.wait_for(20)
        client.load_model("vae")
        callers.wait_for(20)
        with pytest.raises(InferenceServerException, match="no model `vea`"):
            client.load_model("vea")
    assert callers.errors + callers.refusals == []
    assert len(set(callers.answers)) == 1
    assert served.workers()[0]["pid"] != before


def test_sigterm_under_load_answers_what_was_accepted_refuses_the_rest_and_exits_with_0(start) -> None:
    served = start("--workers", "1", "--set", "drain.delay_s=0.2", *ON)
    children = psutil.Process(served.process.pid).children(recursive=True)
    text = {"max_tokens": 400, "seed": 2}
    prompt = np.array([b"ab"], dtype=np.object_)
    answered: list[Any] = []
    where = address(served)
    with triton.InferenceServerClient(where) as client, Callers(where, count=8) as callers:
        callers.wait_for(40)
        client.async_infer(
            "text",
            [tensor("text_input", prompt, "BYTES")],
            lambda result, error: answered.append(error or result.as_numpy("text_output")[0]),
            parameters=text,
        )
        until(lambda: served.workers()[0]["streams"] == 1, served)
        served.process.send_signal(signal.SIGTERM)
        callers.join()
        assert served.process.wait(30) == 0
    assert callers.errors == []
    assert all("the server is stopping" in refusal for refusal in callers.refusals)
    assert len(set(callers.answers)) == 1
    assert len(answered[0]) == 400
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_a_killed_node_comes_back_on_its_port(start) -> None:
    served = start("--workers", "1", *ON)
    where = address(served)
    with grpc.insecure_channel(where) as channel:
        stub = GRPCInferenceServiceStub(channel)
        before = stub.ModelInfer(sampling())
        node = psutil.Process(served.workers()[0]["pid"]).parent()
        assert node is not None
        node.kill()
        psutil.wait_procs([node], timeout=5)
    with grpc.insecure_channel(where) as channel:  # the old one's connection was reset
        stub = GRPCInferenceServiceStub(channel)
        again = stub.ModelInfer(sampling(), wait_for_ready=True, timeout=30)
    assert again == before
    assert served.process.poll() is None


def test_nothing_of_it_is_loaded_unless_it_is_asked_for(served, both) -> None:
    def maps(of: Any) -> str:
        node = psutil.Process(of.workers()[0]["pid"]).parent()
        return " ".join(part.path for part in node.memory_maps())

    assert "cygrpc" not in maps(served)
    assert "cygrpc" in maps(both)
    assert "grpc://" not in served.log.read_text()


def test_a_port_in_use_is_named_and_is_shared_with_nobody(both, bundles: Path) -> None:
    for port in (both.address.rpartition(":")[2], httpx.URL(both.url).port):
        command = [sys.executable, "-m", "triptych", "serve", str(bundles / "vae"), "--port", "0"]
        command += ["--set", f"grpc.port={port}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
        assert "grpc.port" in ended.stderr
