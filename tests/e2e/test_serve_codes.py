"""A VQ-VAE over HTTP: pictures of grids of codes, the same bytes as the library's, however they are asked."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

import triptych
from triptych.bundle.pictures import png
from triptych.learn import VQVAE
from triptych.learn.export import export

PATH = "/v1/models/codes/sample"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = VQVAE.Config(sample_shape=(1, 8, 8), channels=(8,), codes=16, classes=3, prior_width=16)
    return export(VQVAE(config), tmp_path_factory.mktemp("bundles") / "codes")


@pytest.fixture(scope="module")
def codes(bundle: Path, serve: Callable[..., Any]) -> Any:
    return serve(str(bundle), "--workers", "1")


def ask(served: Any, accept: str, **body: Any) -> Any:
    answer = served.client.post(PATH, json=body, headers={"accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


def test_npy_json_and_png_are_what_the_library_draws(codes: Any, bundle: Path) -> None:
    body = {"n": 5, "seed": 7, "condition": {"label": 2}}
    with triptych.load(bundle, threads=1) as engine:
        wanted = engine.sample(5, seed=7, condition={"label": 2})
    assert np.load(io.BytesIO(ask(codes, "application/x-npy", **body).content)).tobytes() == wanted.tobytes()
    assert ask(codes, "image/png", **body).content == png(wanted)
    values = ask(codes, "application/json", **body).json()["samples"]
    assert np.array(values["values"] if isinstance(values, dict) else values, np.float32).tobytes() == (
        wanted.tobytes()
    )


def test_many_at_once_each_get_their_own(codes: Any, bundle: Path) -> None:
    requests = [{"n": 1 + i % 3, "seed": i % 5, "condition": {"label": i % 3}} for i in range(30)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda body: ask(codes, "application/x-npy", **body).content, requests))
    with triptych.load(bundle, threads=1) as engine:
        for body, answer in zip(requests, answers, strict=True):
            assert np.load(io.BytesIO(answer)).tobytes() == engine.sample(**body).tobytes()


def test_the_v2_protocol_describes_draws_encodes_and_decodes(codes: Any, bundle: Path) -> None:
    engine = triptych.load(bundle, threads=1)
    picture = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    with triton.InferenceServerClient(codes.url.removeprefix("http://")) as client:
        about = client.get_model_metadata("codes")
        assert about["inputs"] == [{"name": "indices", "datatype": "INT64", "shape": [-1, 4, 4]}]
        assert about["outputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
        drawn = client.infer("codes", [], parameters={"n": 3, "seed": 7}).as_numpy("samples")
        assert np.array_equal(drawn, engine.sample(3, seed=7))
        x = triton.InferInput("x", [2, 1, 8, 8], "FP32")
        x.set_data_from_numpy(picture)
        indices = client.infer("codes", [x]).as_numpy("indices")
        assert np.array_equal(indices, engine.run("encode", {"x": picture})["indices"])
        grid = triton.InferInput("indices", [2, 4, 4], "INT64")
        grid.set_data_from_numpy(indices)
        assert np.array_equal(
            client.infer("codes", [grid]).as_numpy("x"), engine.run("decode", {"indices": indices})["x"]
        )


def test_a_code_that_is_none_is_400_by_name(codes: Any) -> None:
    grid = np.full((1, 4, 4), 16).tolist()
    answer = codes.client.post("/v1/models/codes/run/decode", json={"inputs": {"indices": grid}})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "decode.indices"


def test_a_prompt_is_the_label_of_pictures(codes: Any, bundle: Path) -> None:
    body = {"model": "codes", "prompt": "1", "n": 2, "seed": 5}
    answer = codes.client.post("/v1/images/generations", json=body).json()
    wanted = triptych.load(bundle).sample(2, seed=5, condition={"label": 1})
    images = [base64.b64decode(image["b64_json"]) for image in answer["data"]]
    assert images == [png(wanted[i : i + 1]) for i in range(2)]
