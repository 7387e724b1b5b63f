"""Row graphs in int8: recorded, chosen by name, and judged in a unit that fits the model."""

import numpy as np
import pytest
from msgspec.structs import replace

import triptych
from triptych.bundle.consistency import problems
from triptych.infer import formulas
from triptych.infer.quality import of_draws, verdict


def test_an_mlp_has_a_graph_in_int8_and_its_gate(vae, vae_bundle):
    graphs = {graph.name: graph for graph in vae.manifest.graphs}
    assert graphs["decode"].int8_graph == "decode_int8"
    assert set(graphs["decode_int8"].operator_sets) == {"ai.onnx"}
    (found,) = (
        m for m in vae.manifest.calibration.measurements if (m.graph, m.precision) == ("decode", "int8")
    )
    assert 0 < found.quality.value < found.quality.limit
    with triptych.load(vae_bundle, precision="int8") as engine:
        assert engine.backend.name == "onnxruntime int8"
        whole = engine.sample(100, seed=1)
        assert whole[7].tobytes() == engine.sample_rows([1], [7])[0].tobytes()
        assert (whole != vae.sample(100, seed=1)).any()


def test_a_graph_in_int8_that_is_missing_is_no_bundle(vae):
    graphs = tuple(replace(graph, int8_graph="lost") for graph in vae.manifest.graphs)
    assert any("'lost'" in problem for problem in problems(replace(vae.manifest, graphs=graphs)))


def test_frechet_is_that_of_normal_distributions():
    a = np.random.default_rng(0).standard_normal((500, 3))
    assert formulas.frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert formulas.frechet(a, a + 2) == pytest.approx(12)
    spread = np.trace(np.cov(a, rowvar=False))
    assert formulas.frechet(a, 3 * (a - a.mean(0)) + a.mean(0)) == pytest.approx(4 * spread)


def test_a_gan_is_judged_beside_another_draw():
    draw = np.random.default_rng(0)
    x, other = draw.standard_normal((2, 256, 5, 4)).astype(np.float32)
    assert verdict(of_draws(x, x + 1e-4, other)) == ""
    assert "times as far" in verdict(of_draws(x, x + 0.5, other))
