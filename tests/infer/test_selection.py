"""Which way a graph is computed, and where what is known of the ways is kept."""

import logging
import pwd

import pytest
from msgspec.structs import replace

import triptych
from triptych.bundle import reader
from triptych.bundle.manifest import Calibration, Measurement
from triptych.errors import ConfigError, DataError
from triptych.infer import calibration_store, machine
from triptych.infer.calibration import calibrate
from triptych.infer.selection import LARGE_BYTES, choose
from triptych.infer.ways import PLAIN, WAYS, ChosenBackend, Way

BF16 = Way("openvino", "bf16")
OPENVINO = Way("openvino", "f32")


def measurement(way, **settings):
    times = settings.pop("latency_s", {1: 1.0, 8: 4.0})
    settings = {"graph": "decode", "latency_s": times, "row_buckets": tuple(times)} | settings
    return Measurement(engine=way.engine, precision=way.precision, **settings)


def chosen(*measurements, wanted=WAYS, weights_bytes=0):
    choice = choose("decode", wanted, Calibration(measurements=measurements), weights_bytes)
    return choice and choice.way


def test_the_fastest_way_that_was_asked_for_is_taken():
    fast, faster = (measurement(way, latency_s={1: t, 8: t}) for way, t in ((OPENVINO, 0.5), (BF16, 0.2)))
    assert chosen(measurement(PLAIN), fast, faster) == BF16
    assert chosen(measurement(PLAIN), fast, faster, wanted=(PLAIN, OPENVINO)) == OPENVINO
    assert chosen(measurement(PLAIN), fast, faster, wanted=(PLAIN,)) == PLAIN


def test_one_way_computes_all_batch_sizes():
    at_one, at_eight = measurement(PLAIN, latency_s={1: 1.0, 8: 9.0}), measurement(BF16, latency_s={8: 1.0})
    choice = choose("decode", WAYS, Calibration(measurements=(at_one, at_eight)))
    assert choice == (BF16, (8,))


def test_a_second_engine_must_be_worth_loading():
    assert chosen(measurement(PLAIN), measurement(OPENVINO, latency_s={1: 0.9, 8: 3.6})) == PLAIN


def test_a_copy_of_large_weights_in_every_process_must_be_worth_more():
    plain, half_more = measurement(PLAIN), {1: 0.6, 8: 2.4}
    for way, weights_bytes, taken in (
        (OPENVINO, 1, OPENVINO),
        (OPENVINO, LARGE_BYTES, PLAIN),
        (BF16, LARGE_BYTES, BF16),  # only there if it was asked for
    ):
        other = measurement(way, latency_s=half_more)
        assert chosen(plain, other, weights_bytes=weights_bytes) == taken
    much_faster = measurement(OPENVINO, latency_s={1: 0.4, 8: 1.6})
    assert chosen(plain, much_faster, weights_bytes=LARGE_BYTES) == OPENVINO


def test_a_way_that_lacks_the_larger_sizes_is_charged_for_several_calls():
    small = measurement(BF16, latency_s={1: 0.9})
    assert chosen(measurement(PLAIN, latency_s={1: 1.0, 8: 1.0}), small) == PLAIN


def test_a_way_that_fails_its_gate_is_never_taken():
    failed = measurement(BF16, latency_s={}, row_buckets=(1,), refused="it changes the model by 3 nats")
    assert chosen(measurement(PLAIN), failed) == PLAIN
    with pytest.raises(ConfigError, match="graph decode: openvino bf16: it changes the model by 3 nats"):
        chosen(measurement(PLAIN), failed, wanted=(BF16,))


def test_a_graph_that_was_not_tried_is_computed_plainly():
    assert chosen() is None
    with pytest.raises(ConfigError, match="row graphs only"):
        chosen(wanted=(OPENVINO,))


def test_a_precision_below_the_gate_is_refused_at_load_with_the_figure(vae_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr("triptych.infer.quality.LIMITS", {"kl_nats": 1e-12, "rms_error": 1e-12})
    bundle = reader.read(vae_bundle)
    calibration_store.keep(bundle.manifest, calibrate(bundle, 1))
    measured = [m for m in calibration_store.find(bundle.manifest).measurements if m.precision == "bf16"]
    if not measured:
        pytest.skip("a processor without bfloat16")
    assert all(m.quality.value > 1e-12 and not m.latency_s for m in measured)
    with pytest.raises(ConfigError, match=r"it changes the model by .* nats an example; 1e-12 are allowed"):
        triptych.load(vae_bundle, precision="bf16")
    with triptych.load(vae_bundle, precision="auto") as engine:
        assert {choice.way.precision for choice in engine.backend.choices.values()} == {"f32"}


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "processor", lambda: "another")
    return tmp_path / "cache"


def test_on_another_processor_auto_falls_back_and_says_so(vae_bundle, elsewhere, caplog):
    with caplog.at_level(logging.INFO), triptych.load(vae_bundle, precision="auto") as engine:
        assert engine.backend.name == "onnxruntime f32"
    assert "no calibration" in caplog.text
    assert not elsewhere.exists()


def test_on_another_processor_an_engine_asked_for_is_calibrated_once(vae_bundle, elsewhere):
    with triptych.load(vae_bundle, engine="openvino") as engine:
        made = engine.sample(5)
    (kept,) = (elsewhere / "calibration").iterdir()
    before = kept.stat().st_mtime_ns
    with triptych.load(vae_bundle, engine="openvino") as engine:
        assert engine.sample(5).tobytes() == made.tobytes()
    assert kept.stat().st_mtime_ns == before


def test_a_calibration_that_cannot_be_kept_is_used_and_said(vae_bundle, elsewhere, caplog):
    elsewhere.write_text("a file, not a folder")
    with triptych.load(vae_bundle, engine="openvino") as engine:
        assert engine.sample(3).shape[0] == 3
    assert "is not kept" in caplog.text
    with pytest.raises(DataError, match="TRIPTYCH_CACHE"):
        calibration_store.keep(engine.manifest, Calibration())


def test_a_user_without_a_home_loads_what_was_exported_and_is_told_what_to_set(vae_bundle, monkeypatch):
    """As in a container, whose user may have no entry in /etc/passwd."""
    for name in ("HOME", "XDG_CACHE_HOME", "TRIPTYCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    with triptych.load(vae_bundle, share_weights=True) as engine:
        assert engine.sample(3).shape[0] == 3
    assert calibration_store.find(engine.manifest) == engine.manifest.calibration
    with pytest.raises(DataError, match=r"cache: this user has no home folder\. Set TRIPTYCH_CACHE"):
        calibration_store.keep(engine.manifest, Calibration())


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"measurements": 3}', b"impossible"])
def test_a_damaged_file_of_the_cache_is_as_good_as_none(vae_bundle, tmp_path, monkeypatch, content):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    manifest = reader.read_manifest(vae_bundle)
    path = calibration_store.keep(manifest, replace(manifest.calibration, threads=77))
    assert calibration_store.find(manifest).threads == 77
    if content == b"impossible":
        broken = replace(manifest.calibration, measurements=(measurement(PLAIN, latency_s={}),))
        calibration_store.keep(manifest, broken)
    else:
        path.write_bytes(content)
    assert calibration_store.find(manifest) == manifest.calibration


def test_engines_of_other_versions_were_not_calibrated(vae_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    manifest = reader.read_manifest(vae_bundle)
    assert calibration_store.find(manifest) is not None
    monkeypatch.setattr(machine, "versions", lambda: {"onnxruntime": "99"})
    assert calibration_store.find(manifest) is None


def test_the_processor_has_a_name_that_does_not_change():
    assert machine.processor() == machine.processor() != ""
    assert set(machine.versions()) <= set(machine.ENGINE_PACKAGES)
    assert machine.cores() >= 1


@pytest.mark.parametrize("just_exported", [False, True])
def test_bytes_are_tried_with_the_number_of_threads_a_calibration_is_for(
    vae_bundle, monkeypatch, just_exported
):
    class Uneven(ChosenBackend):
        """With 3 threads a row depends on how many are beside it."""

        def run(self, graph, inputs):
            outputs = super().run(graph, inputs)
            return {
                name: array + len(array) * 1e-7 if self._threads == 3 else array
                for name, array in outputs.items()
            }

    monkeypatch.setattr("triptych.infer.calibration.ChosenBackend", Uneven)
    found = calibrate(reader.read(vae_bundle), 3, just_exported=just_exported)
    assert found.measurements
    assert all("at no batch size" in measured.refused for measured in found.measurements)
