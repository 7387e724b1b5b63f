"""Every engine at every precision: the same function, and the same bytes for a row in any company."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import triptych
from triptych.bundle import noise
from triptych.errors import ConfigError
from triptych.infer import machine, open_vino
from triptych.infer.ways import WAYS, obstacle
from triptych.learn import VAE, WGANGP
from triptych.learn.export import export

ROWS = 300  # more than one batch of the largest size
MODELS = {
    "mlp": lambda: VAE(VAE.Config(sample_shape=(1, 6, 5), hidden=(40, 24), latent_dim=4)),
    "wide": lambda: VAE(VAE.Config(sample_shape=(1, 28, 28), hidden=(100,), latent_dim=33)),
    "conditional": lambda: VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(16,), latent_dim=3, classes=5)),
    "gan": lambda: WGANGP(WGANGP.Config(sample_shape=(1, 4, 4))),
}
TOLERANCES = {"f32": 1e-5, "bf16": 0.02, "int8": 0.03}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    torch.manual_seed(0)
    made = {name: model() for name, model in MODELS.items()}
    return {
        name: (model, export(model, tmp_path_factory.mktemp(name) / name)) for name, model in made.items()
    }


@pytest.fixture(scope="module", params=MODELS)
def exported(request, bundles):
    return bundles[request.param]


@pytest.fixture(scope="module", params=WAYS, ids=str)
def way(request):
    if problem := obstacle(request.param):
        pytest.skip(problem)  # a processor without bfloat16
    return request.param


@pytest.fixture(scope="module")
def engine(exported, way):
    with triptych.load(exported[1], engine=way.engine, precision=way.precision, threads=2) as engine:
        yield engine


def test_every_graph_is_computed_that_way(engine, way):
    asked_for = [graph.name for graph in engine.manifest.graphs if not graph.name.endswith("_int8")]
    assert {engine.backend.choices[graph].way for graph in asked_for} == {way}
    assert engine.backend.name == str(way)


def test_samples_are_those_of_torch_within_the_precision(engine, way, exported):
    expected = exported[0].sample(20, seed=5).numpy()
    np.testing.assert_allclose(engine.sample(20, seed=5), expected, rtol=0, atol=TOLERANCES[way.precision])


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_row_has_the_same_bytes_in_any_company(engine, data):
    whole = sampled(engine)
    rows = data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS))
    found = engine.sample_rows([3] * len(rows), rows)
    assert found.tobytes() == whole[rows].tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_no_byte(engine, way, exported, threads):
    with triptych.load(exported[1], way.engine, threads, precision=way.precision) as other:
        assert other.sample(100, seed=3).tobytes() == sampled(engine)[:100].tobytes()


def sampled(engine):
    return engine.sample(ROWS, seed=3)


def test_another_process_gives_the_same_bytes(exported, way):
    _, folder = exported
    with triptych.load(folder, way.engine, precision=way.precision) as engine:
        here = engine.sample(37, seed=9)
    code = (
        "import sys, triptych\n"
        "engine = triptych.load(sys.argv[1], sys.argv[2], 1, precision=sys.argv[3])\n"
        "sys.stdout.buffer.write(engine.sample(37, seed=9).tobytes())\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", code, str(folder), *way], capture_output=True, check=True, timeout=60
    )
    assert there.stdout == here.tobytes()


def test_several_threads_may_run_one_graph(engine):
    from concurrent.futures import ThreadPoolExecutor

    whole = sampled(engine)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: engine.sample_rows([3] * 10, range(i, i + 10)), range(0, 200, 10)))
    assert np.concatenate(parts).tobytes() == whole[:200].tobytes()


def test_the_encoder_too(engine, exported, way):
    if "encode" not in {graph.name for graph in engine.manifest.graphs} or engine.manifest.sampler.classes:
        pytest.skip("a GAN has none, and a conditional one is asked the same")
    x = engine.sample(9, seed=1)
    with torch.no_grad():
        expected = exported[0].encode(torch.from_numpy(x))
    mean = expected[0] if isinstance(expected, tuple) else expected.mean
    np.testing.assert_allclose(
        engine.encode(x).mean, mean.numpy(), rtol=0, atol=5 * TOLERANCES[way.precision]
    )
    alone = [engine.encode(x[i : i + 1]).mean[0] for i in range(9)]
    assert np.stack(alone).tobytes() == engine.encode(x).mean.tobytes()


def test_an_engine_that_is_not_installed_is_named_with_its_remedy(vae_bundle, monkeypatch):
    monkeypatch.setattr(machine, "versions", lambda: {"onnxruntime": "1"})
    with pytest.raises(ConfigError, match=r"pip install 'triptych\[openvino\]'"):
        triptych.load(vae_bundle, engine="openvino")
    with triptych.load(vae_bundle, engine="auto", precision="auto") as engine:
        assert engine.backend.name == "onnxruntime f32"


def test_a_processor_without_bfloat16_is_told(vae_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "processor", lambda: "an older one")
    monkeypatch.setattr(open_vino, "computes_bf16", lambda: False)
    with pytest.raises(ConfigError, match=r"\(an older one\) does not compute in bfloat16"):
        triptych.load(vae_bundle, precision="bf16")


@pytest.mark.parametrize("precision", ["bf17", None, "int4"])
def test_an_unknown_precision_is_refused(vae_bundle, precision):
    with pytest.raises(ConfigError, match="precision"):
        triptych.load(vae_bundle, precision=precision)


def test_a_precision_that_an_engine_lacks_is_refused(vae_bundle):
    valid = "valid: onnxruntime f32, onnxruntime int8, openvino f32, openvino bf16, openvino int8"
    with pytest.raises(ConfigError, match=valid):
        triptych.load(vae_bundle, engine="onnxruntime", precision="bf16")


def test_openvino_computes_with_the_bytes_that_were_checked(vae_bundle, tmp_path):
    folder = shutil.copytree(vae_bundle, tmp_path / "vae")
    z = noise.normal([0] * 4, range(4), (4,))
    with triptych.load(folder) as plain, triptych.load(folder, engine="openvino") as engine:
        expected = plain.decode(z)
        (tmp_path / "other").write_bytes(bytes((folder / "model.safetensors").stat().st_size))
        (tmp_path / "other").replace(folder / "model.safetensors")
        np.testing.assert_allclose(engine.decode(z), expected, rtol=0, atol=1e-6)
