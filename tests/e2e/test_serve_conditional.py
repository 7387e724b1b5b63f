"""A conditional model over HTTP: each request has its own label, and the same request the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import triptych
from triptych.bundle.pictures import png
from triptych.learn import WGANGP
from triptych.learn.export import export

PATH, NPY = "/v1/models/kinds/sample", {"accept": "application/x-npy"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = WGANGP.Config(
        sample_shape=(1, 8, 8), latent_dim=4, classes=3, generator_hidden=(16,), critic_hidden=(8,)
    )
    return export(WGANGP(config), tmp_path_factory.mktemp("bundles") / "kinds")


@pytest.fixture(scope="module")
def kinds(bundle: Path, serve: Callable[..., Any]) -> Any:
    return serve(str(bundle), "--workers", "2")


def ask(served: Any, **body: Any) -> httpx.Response:
    return served.client.post(PATH, json=body, headers=NPY)


@pytest.mark.parametrize("condition", [None, {"label": 2}, {"label": [2, 0, 1, 1]}])
def test_the_answer_is_what_the_library_draws(kinds: Any, bundle: Path, condition: object) -> None:
    with triptych.load(bundle, threads=1) as engine:
        wanted = engine.sample(4, seed=7, condition=condition)
    answer = ask(kinds, n=4, seed=7, condition=condition)
    assert np.load(io.BytesIO(answer.content)).tobytes() == wanted.tobytes()
    again = ask(kinds, n=4, seed=7, condition=condition)
    assert again.content == answer.content


def test_requests_of_different_labels_in_one_batch_keep_their_own(kinds: Any, bundle: Path) -> None:
    requests = [{"n": 1 + i % 3, "seed": i % 5, "condition": {"label": i % 3}} for i in range(60)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda body: ask(kinds, **body), requests))
    with triptych.load(bundle, threads=1) as engine:
        for body, answer in zip(requests, answers, strict=True):
            wanted = engine.sample(**body)
            assert np.load(io.BytesIO(answer.content)).tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("condition", "param"),
    [
        (3, "condition"),
        ({}, "condition"),
        ({"lable": 1}, "condition"),
        ({"label": 3}, "condition.label"),
        ({"label": -1}, "condition.label"),
        ({"label": 1.5}, "condition.label"),
        ({"label": "1"}, "condition.label"),
        ({"label": [1]}, "condition.label"),
        ({"label": 2**70}, "condition.label"),
        ({"label": [1, None]}, "condition.label"),
    ],
)
def test_a_label_that_is_none_is_400_by_name(kinds: Any, condition: object, param: str) -> None:
    answer = ask(kinds, n=2, condition=condition)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_the_graph_runs_with_its_label(kinds: Any) -> None:
    inputs = {"z": [[0, 0, 0, 0], [0, 0, 0, 0]], "label": [0, 1]}
    answer = kinds.client.post("/v1/models/kinds/run/generate", json={"inputs": inputs}).json()
    first, second = answer["outputs"]["x"]["values"]
    assert first != second
    refused = kinds.client.post("/v1/models/kinds/run/generate", json={"inputs": {**inputs, "label": [0, 3]}})
    assert refused.json()["error"]["param"] == "generate.label"


def test_a_prompt_is_the_label_of_pictures(kinds: Any, bundle: Path) -> None:
    body = {"model": "kinds", "prompt": "2", "n": 2, "seed": 5}
    answer = kinds.client.post("/v1/images/generations", json=body)
    wanted = triptych.load(bundle).sample(2, seed=5, condition={"label": 2})
    images = [base64.b64decode(image["b64_json"]) for image in answer.json()["data"]]
    assert images == [png(wanted[i : i + 1]) for i in range(2)]
    for prompt in ("3", "two", "-1"):
        refused = kinds.client.post("/v1/images/generations", json={**body, "prompt": prompt})
        assert refused.status_code == 400, prompt
