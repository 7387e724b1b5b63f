"""A server computes with the engine and precision that its settings name, or says at once why it cannot."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import triptych
from triptych.bundle.digest import seal

REQUEST = {"model": "text", "prompt": "To be", "max_tokens": 24, "seed": 3, "logprobs": 0}


def refused(*arguments: str) -> str:
    """What a server that must not start says."""
    command = [sys.executable, "-m", "triptych", "serve", "--port", "0", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr


def test_a_text_in_int8_has_the_bytes_of_the_engine_in_int8(serve, bundles: Path) -> None:
    served = serve(str(bundles / "text"), "--workers", "2", "--set", "workers.precision=int8")
    answer = served.client.post("/v1/completions", json=REQUEST).json()["choices"][0]
    found = {}
    for precision in ("int8", "f32"):
        with triptych.load(bundles / "text", threads=1, precision=precision) as engine:
            found[precision] = engine.generate("To be", max_tokens=24, seed=3, logprobs=True).logprobs
    assert answer["logprobs"]["token_logprobs"] == found["int8"] != found["f32"]


def test_the_standard_step_is_served_and_what_lacks_it_is_refused(serve, bundles: Path) -> None:
    way = ("--set", "workers.operators=standard")
    served = serve(str(bundles / "text"), "--workers", "2", *way)
    answer = served.client.post("/v1/completions", json=REQUEST).json()["choices"][0]
    with triptych.load(bundles / "text", threads=1, operators="standard") as engine:
        made = engine.generate("To be", max_tokens=24, seed=3, logprobs=True)
    assert (answer["text"], answer["logprobs"]["token_logprobs"]) == (made.text, made.logprobs)
    assert "holds no cached step in them" in refused(str(bundles / "vae"), *way)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
@pytest.mark.parametrize(
    ("engine", "precision"), [("openvino", "f32"), ("onnxruntime", "int8"), ("openvino", "int8")]
)
def test_samples_computed_another_way_have_the_bytes_of_that_way(
    serve, bundles: Path, engine: str, precision: str
) -> None:
    way = ("--set", f"workers.engine={engine}", "--set", f"workers.precision={precision}")
    served = serve(str(bundles / "vae"), "--workers", "2", *way)
    path, headers = "/v1/models/vae/sample", {"accept": "application/x-npy"}
    answer = served.client.post(path, json={"n": 5, "seed": 7}, headers=headers).content
    with triptych.load(bundles / "vae", threads=1, engine=engine, precision=precision) as opened:
        assert opened.backend.name == f"{engine} {precision}"
        assert answer.endswith(opened.sample(5, seed=7).tobytes())


def test_a_precision_beyond_its_gate_is_refused_with_the_figure(bundles: Path, tmp_path: Path) -> None:
    worse = shutil.copytree(bundles / "text", tmp_path / "text")
    manifest = json.loads((worse / "manifest.json").read_bytes())
    ways = manifest["sampler"]["precisions"]
    plain_cache = next(way for way in ways if (way["precision"], way["cache_precision"]) == ("int8", "f32"))
    plain_cache["refused"] = "its tokens are 0.5 nats off, up to 0.01 are allowed"
    unsealed = json.dumps({**manifest, "digest": ""}, indent=2, ensure_ascii=False) + "\n"
    (worse / "manifest.json").write_bytes(seal(unsealed.encode()))
    assert "0.5 nats" in refused(str(worse), "--set", "workers.precision=int8")


def test_what_a_bundle_cannot_be_computed_with_is_one_error(bundles: Path) -> None:
    assert "vae holds no cached step" in refused(
        str(bundles / "vae"), "--set", "workers.cache_precision=int8"
    )
    assert "row graphs only" in refused(
        str(bundles / "text"), "--set", "workers.engine=openvino", "--set", "workers.precision=f32"
    )
    assert "precision" in refused(str(bundles / "vae"), "--set", "workers.precision=f64")
