"""A row graph in int8: what is rounded, how far, and that both engines multiply bytes."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

import triptych
from triptych.bundle import reader
from triptych.errors import ConfigError
from triptych.infer import machine
from triptych.infer.onnx_runtime import OnnxRuntimeBackend
from triptych.infer.open_vino import OpenVinoBackend
from triptych.learn import VAE, VQVAE, WGANGP, int8_rows
from triptych.learn.export import export

SETTINGS = {"sample_shape": (1, 6, 5), "hidden": (40, 24), "latent_dim": 4}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    torch.manual_seed(0)
    return export(VAE(VAE.Config(**SETTINGS)), tmp_path_factory.mktemp("int8") / "plain")


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """A conditional VAE whose decoder has many activations, and a layer without a bias."""
    torch.manual_seed(0)
    model = VAE(VAE.Config(classes=3, **SETTINGS))
    model.decoder = nn.Sequential(
        *(nn.Linear(7, 24), nn.LeakyReLU(0.2), nn.Linear(24, 40, bias=False), nn.Tanh(), nn.Linear(40, 32)),
        *(nn.GELU(), nn.Linear(32, 24), nn.SiLU(), nn.Linear(24, 30)),
    )
    return export(model, tmp_path_factory.mktemp("int8") / "varied")


def nodes(bundle, graph="decode_int8"):
    return list(onnx.load(bundle / f"{graph}.onnx", load_external_data=False).graph.node)


def first_steps(found):
    """The scale and the zero of what is rounded first."""
    made = {node.output[0]: node for node in found}
    names = next(node for node in found if node.op_type == "QuantizeLinear").input[1:3]
    return [numpy_helper.to_array(made[name].attribute[0].t) for name in names]


def test_what_reads_latents_stays_in_float32(plain):
    found = nodes(plain)
    products = [node for node in found if node.op_type == "Gemm"]
    rounded = {node.output[0] for node in found if node.op_type == "DequantizeLinear"}
    assert [node.input[0] in rounded for node in products] == [False, True, True]
    assert products[0].input[0] == "z"


def test_pixels_are_exact_beside_a_label_too(plain, varied):
    for bundle in (plain, varied):
        assert first_steps(nodes(bundle, "encode_int8")) == [np.float32(1 / 255), 0]


def test_whoever_reads_the_page_of_the_bundle_computes_the_same(plain):
    """docs/internals/bundle.md, in numpy."""
    found = nodes(plain)
    made = {node.output[0]: node for node in found}
    pairs = [node.input[1:3] for node in found if node.op_type == "QuantizeLinear"]
    with triptych.load(plain, engine="onnxruntime", precision="int8") as engine:
        z = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
        x = z @ engine.tensor("decoder.0.weight").T + engine.tensor("decoder.0.bias")
        for layer, names in zip(("decoder.2", "decoder.4"), pairs, strict=True):
            scale, zero = (numpy_helper.to_array(made[name].attribute[0].t) for name in names)
            q = np.clip(np.rint(np.maximum(x, 0) / scale) + zero, 0, 255) - zero
            weight = engine.tensor(f"{layer}.weight.int8_rows").astype(np.float32)
            of_weight = engine.tensor(f"{layer}.weight.int8_rows_scale")
            assert np.abs(weight).max() == 127
            x = scale * of_weight * (q @ weight.T) + engine.tensor(f"{layer}.bias")
        np.testing.assert_allclose(engine.decode(z).reshape(16, -1), 1 / (1 + np.exp(-x)), atol=1e-3)


def test_it_is_what_torch_computes_with_rounded_numbers(plain, varied):
    for bundle in (plain, varied):
        with triptych.load(bundle) as engine:
            for graph in ("decode_int8", "encode_int8"):  # one number may be rounded to the next step
                assert engine.graph(graph).parity.max_abs_error < 1e-3


def test_latents_twice_as_far_out_have_room_and_those_far_beyond_are_clipped(plain):
    z = 2 * np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    with triptych.load(plain) as exact, triptych.load(plain, precision="int8") as engine:
        assert np.abs(exact.decode(z) - engine.decode(z)).max() < 0.03
        beyond = engine.decode(1000 * z)
    assert np.isfinite(beyond).all()
    assert 0 <= beyond.min() <= beyond.max() <= 1


def test_onnxruntime_multiplies_bytes(plain, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(plain / "decode_int8.onnx"), options, providers=["CPUExecutionProvider"])
    found = [
        node.op_type for node in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    ]
    assert found.count("QGemm") == 2
    assert "DequantizeLinear" not in found


@pytest.mark.skipif("openvino" not in machine.versions(), reason="OpenVINO is not installed")
def test_openvino_multiplies_bytes(plain):
    with triptych.load(plain, engine="openvino", precision="int8") as engine:
        compiled, _ = engine.backend._backend("decode")._model("decode_int8")
        kinds = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
        layers = [kind for kind in kinds if kind["layerType"].astype(str) == "FullyConnected"]
        assert [layer["runtimePrecision"].astype(str) for layer in layers] == ["f32", "u8", "u8"]


def test_convolutions_are_rounded_and_codes_that_come_out_are_not(tmp_path):
    torch.manual_seed(0)
    small = {"channels": (16,), "codes": 12, "code_dim": 4, "prior_layers": 1, "prior_width": 32}
    bundle = export(VQVAE(VQVAE.Config(sample_shape=(1, 8, 8), **small)), tmp_path / "codes")
    with triptych.load(bundle) as engine:
        rounded = {graph.name: graph.int8_graph for graph in engine.manifest.graphs}
        assert (rounded["decode"], rounded["encode"]) == ("decode_int8", "")
        codes = np.random.default_rng(0).integers(0, 12, (8, 4, 4))
        exact = engine.decode(codes)
        runs = [OnnxRuntimeBackend(reader.read(bundle), 1)]
        if "openvino" in machine.versions():
            runs.append(OpenVinoBackend(reader.read(bundle), 1, "int8"))
        for backend in runs:
            found = backend.run("decode_int8", {engine.graph("decode").inputs[0].name: codes})["x"]
            assert 0 < np.abs(found - exact).max() < 0.02
            backend.close()


def test_a_model_that_multiplies_latents_alone_has_no_graph_in_int8(tmp_path):
    bundle = export(WGANGP(WGANGP.Config(sample_shape=(1, 4, 4), generator_hidden=())), tmp_path / "gan")
    with pytest.raises(ConfigError, match="holds no graph in int8"):
        triptych.load(bundle, precision="int8")


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_numbers_within_the_range_are_off_by_half_a_step_at_most_and_zero_by_nothing(numbers, a, b):
    steps = int8_rows.steps(min(a, b), max(a, b))
    x = torch.tensor(numbers).clamp(min(a, b, 0.0), max(a, b, 0.0))
    assert ((steps.rounded(x) - x).abs() <= 1.001 * steps.scale).all()
    assert steps.rounded(torch.zeros(1)) == 0


@given(st.integers(1, 5), st.integers(1, 7), st.sampled_from([(), (3,), (3, 3)]), st.integers(0, 2**31 - 1))
def test_weights_are_off_by_half_a_step_at_most(rows, columns, places, seed):
    weight = torch.randn(rows, columns, *places, generator=torch.Generator().manual_seed(seed))
    number, scale = int8_rows.rounded(weight)
    scale = int8_rows.spread(scale, weight)
    assert ((number * scale - weight).abs() <= scale * (0.5 + 1e-4)).all()
