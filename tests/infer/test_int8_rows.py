"""Row graphs in int8: recorded, chosen by name, and judged in a unit that fits the model."""

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import triptych
from triptych.bundle import reader
from triptych.bundle.consistency import problems
from triptych.errors import ConfigError
from triptych.infer import calibration_store, formulas
from triptych.infer.calibration import calibrate
from triptych.infer.quality import of_draws, verdict
from triptych.infer.ways import INT8, WAYS, obstacle

INT8_WAYS = [way for way in WAYS if way.precision == INT8 and not obstacle(way)]


EARLIER = Path(__file__).parent / "earlier"  # exported when every row had a scale of its own


@pytest.mark.parametrize("way", INT8_WAYS, ids=str)
def test_an_mlp_has_a_graph_in_int8_and_its_gate(vae, vae_bundle, way):
    graphs = {graph.name: graph for graph in vae.manifest.graphs}
    assert graphs["decode"].int8_graph == "decode_int8"
    assert set(graphs["decode_int8"].operator_sets) == {"ai.onnx"}
    found = measured(vae, "decode", way)
    assert 0 < found.quality.value < found.quality.limit
    with triptych.load(vae_bundle, way.engine, precision="int8") as engine:
        assert engine.backend.name == str(way)
        whole = engine.sample(100, seed=1)
        assert whole[7].tobytes() == engine.sample_rows([1], [7])[0].tobytes()
        assert (whole != vae.sample(100, seed=1)).any()


def measured(engine, graph, way):
    held = engine.manifest.calibration.measurements
    return next(m for m in held if (m.graph, m.engine, m.precision) == (graph, *way))


def test_whatever_engine_is_faster_computes_int8(vae, vae_bundle):
    with triptych.load(vae_bundle, precision="int8") as engine:
        way = engine.backend.choices["decode"].way
        assert way in INT8_WAYS
        assert engine.backend.choices["decode"].row_buckets == measured(vae, "decode", way).row_buckets


@pytest.mark.parametrize("way", INT8_WAYS, ids=str)
def test_an_int8_that_fails_its_gate_is_refused_with_the_figure(vae_bundle, way, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr("triptych.infer.quality.LIMITS", {"kl_nats": 1e-12, "rms_error": 1e-12})
    bundle = reader.read(vae_bundle)
    calibration_store.keep(bundle.manifest, calibrate(bundle, 1))
    with pytest.raises(ConfigError, match=r"int8: it changes the model by .* nats an example; 1e-12 are"):
        triptych.load(vae_bundle, way.engine, precision="int8")


@pytest.mark.parametrize("way", INT8_WAYS, ids=str)
def test_an_earlier_int8_of_another_kind_is_read_and_tried_in_the_ways_there_are(way, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    with triptych.load(EARLIER) as exact, triptych.load(EARLIER, way.engine, precision="int8") as engine:
        assert engine.backend.name == str(way)
        whole = engine.sample(100, seed=1)
        assert 0 < np.abs(whole - exact.sample(100, seed=1)).max() < 0.01
        assert whole[7].tobytes() == engine.sample_rows([1], [7])[0].tobytes()


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
