"""The V2 inference protocol, spoken by `tritonclient` and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import triptych

INFER = "/v2/models/vae/infer"


@pytest.fixture(scope="module")
def client(served):
    with triton.InferenceServerClient(served.url.removeprefix("http://")) as client:
        yield client


def latents(rows: int = 3) -> np.ndarray:
    return np.linspace(-1, 1, 4 * rows, dtype=np.float32).reshape(rows, 4)


def tensor(name: str, values: np.ndarray, datatype: str = "FP32", *, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_the_server_and_its_models_say_what_they_are(client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("vae")
    assert client.get_server_metadata()["name"] == "triptych"
    assert client.get_server_metadata()["settings"]["limits"]["body_bytes"] == 100000
    about = client.get_model_metadata("vae")
    assert about["inputs"] == [{"name": "z", "datatype": "FP32", "shape": [-1, 4]}]
    assert about["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert set(about["graphs"]) >= {"decode", "encode"}
    assert client.is_model_ready("vae", about["versions"][0])
    assert {model["name"] for model in client.get_model_repository_index()} == {"vae", "text"}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_graph_run_equals_the_engine_s(client, bundles: Path, binary_in: bool, binary_out: bool) -> None:
    z = latents()
    wanted = triptych.load(bundles / "vae").run("decode", {"z": z})["x"]
    asked = [triton.InferRequestedOutput("x", binary_data=binary_out)]
    answer = client.infer("vae", [tensor("z", z, binary=binary_in)], outputs=asked, request_id="seven")
    assert np.array_equal(answer.as_numpy("x"), wanted)
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_name"] == "vae"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_request_is_read(client, bundles: Path, coding: str) -> None:
    z = latents()
    wanted = triptych.load(bundles / "vae").run("decode", {"z": z})["x"]
    answer = client.infer("vae", [tensor("z", z)], request_compression_algorithm=coding)
    assert np.array_equal(answer.as_numpy("x"), wanted)


def test_the_timeout_of_the_protocol_is_a_deadline(client, bundles: Path) -> None:
    z = latents()
    wanted = triptych.load(bundles / "vae").run("decode", {"z": z})["x"]
    assert np.array_equal(client.infer("vae", [tensor("z", z)], timeout=10_000_000).as_numpy("x"), wanted)
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer("vae", [tensor("z", z)], timeout=1)


def test_what_this_server_has_not_is_said_in_the_protocol_s_shape(client) -> None:
    for ask in (client.get_log_settings, client.get_trace_settings, client.get_system_shared_memory_status):
        with pytest.raises(InferenceServerException, match="there is no `/v2/"):
            ask()
    with pytest.raises(InferenceServerException, match="there is no `/v2/models/vae/config`"):
        client.get_model_config("vae")


def test_inputs_name_the_graph_and_a_parameter_settles_it(client, bundles: Path) -> None:
    x = np.full((2, 1, 8, 8), 0.25, np.float32)
    engine = triptych.load(bundles / "vae")
    wanted = engine.run("encode", {"x": x})
    answer = client.infer("vae", [tensor("x", x)])
    assert all(np.array_equal(answer.as_numpy(name), values) for name, values in wanted.items())
    answer = client.infer("vae", [tensor("x", x)], parameters={"graph": "encode"})
    assert np.array_equal(answer.as_numpy("mean"), wanted["mean"])


def test_samples_are_the_engine_s(client, bundles: Path) -> None:
    answer = client.infer("vae", [], parameters={"n": 5, "seed": 7})
    assert np.array_equal(answer.as_numpy("samples"), triptych.load(bundles / "vae").sample(5, seed=7))
    assert answer.get_response()["parameters"]["seed"] == 7


@pytest.mark.parametrize("binary", [True, False])
def test_texts_are_continued(client, bundles: Path, binary: bool) -> None:
    prompts = np.array([b"to be", b"caf"], dtype=np.object_)
    settings = {"max_tokens": 8, "seed": 3, "temperature": 0.5}
    asked = [triton.InferRequestedOutput("text_output", binary_data=binary)]
    answer = client.infer(
        "text", [tensor("text_input", prompts, "BYTES", binary=binary)], outputs=asked, parameters=settings
    )
    engine = triptych.load(bundles / "text")
    wanted = [engine.generate(p, max_tokens=8, seed=3, temperature=0.5).text for p in ("to be", "caf")]
    made = [t.decode() if isinstance(t, bytes) else t for t in answer.as_numpy("text_output").tolist()]
    assert made == wanted


@pytest.mark.parametrize(
    ("inputs", "more", "said"),
    [
        ([tensor("q", latents())], {}, "no graph takes q; valid: .*decode: z"),
        ([tensor("z", latents().astype(np.float64), "FP64")], {}, "float64"),
        ([tensor("z", latents()[:, :3])], {}, "shape"),
        ([tensor("z", latents())], {"parameters": {"graph": "decoder"}}, "no graph `decoder`"),
        ([tensor("z", latents())], {"parameters": {"warmth": 1}}, "warmth"),
        ([tensor("z", latents())], {"outputs": [triton.InferRequestedOutput("y")]}, "no `y`"),
        ([tensor("z", latents())], {"outputs": [triton.InferRequestedOutput("x", class_count=2)]}, "classif"),
        ([tensor("z", latents())], {"model_version": "9"}, "no version"),
        ([], {"parameters": {"n": 0}}, "n"),
    ],
)
def test_what_is_wrong_is_said_in_the_protocol_s_shape(client, inputs, more, said: str) -> None:
    with pytest.raises(InferenceServerException, match=said):
        client.infer("vae", inputs, **more)


def part(**more: Any) -> dict[str, Any]:
    return {"name": "z", "shape": [1, 4], "datatype": "FP32", **more}


@pytest.mark.parametrize(
    ("inputs", "binary", "length"),
    [
        ([part(parameters={"binary_data_size": 16})], b"\0" * 15, None),
        ([part(parameters={"binary_data_size": 16})], b"\0" * 17, None),
        ([part(parameters={"binary_data_size": -1})], b"", None),
        ([part(parameters={"binary_data_size": 2**62})], b"", None),
        ([part(parameters={"binary_data_size": 8})], b"\0" * 8, None),
        ([part(data=[1, 2, 3])], b"", None),
        ([part(data=["a"] * 4)], b"", None),
        ([part(data={"a": 1})], b"", None),
        ([part(data=[[1], [2, 3]])], b"", None),
        ([part(data=[1, 2, 3, 4], datatype="FP8")], b"", None),
        ([part(data=[0.5, 2, 3, 4], datatype="INT64")], b"", None),
        ([part()], b"", None),
        ([part(data=[1, 2, 3, 4], shape=[-1, 4])], b"", None),
        ([part(data=[1, 2, 3, 4])], b"", "99999"),
        ([part(data=[1, 2, 3, 4])], b"", "-4"),
        ([part(parameters={"shared_memory_region": "x"})], b"", None),
    ],
)
def test_a_body_that_contradicts_itself_is_400(served, inputs, binary: bytes, length: str | None) -> None:
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(head))}
    answer = served.client.post(INFER, content=head + binary, headers=headers)
    assert answer.status_code == 400, answer.text
    assert isinstance(answer.json()["error"], str)


def test_a_row_s_bytes_do_not_depend_on_its_company(client) -> None:
    z = latents(40)
    whole = client.infer("vae", [tensor("z", z)]).as_numpy("x")
    alone = client.infer("vae", [tensor("z", z[17:18])]).as_numpy("x")
    assert np.array_equal(whole[17:18], alone)


def test_a_parameter_of_one_tensor_changes_nothing_and_an_unknown_one_is_refused(served) -> None:
    more = {"parameters": {"content_type": "np"}}
    z = {"name": "z", "shape": [1, 4], "datatype": "FP32", "data": [0, 1, 2, 3]}
    plain = served.client.post(INFER, json={"inputs": [z], "outputs": [{"name": "x"}]})
    answer = served.client.post(INFER, json={"inputs": [z | more], "outputs": [{"name": "x"} | more]})
    assert (answer.status_code, answer.content) == (200, plain.content)
    refused = served.client.post(INFER, json={"inputs": [z], **more})
    assert (refused.status_code, "content_type" in refused.json()["error"]) == (400, True)
