"""What every engine must do with every family's bundle, and what every bundle must look like."""

import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import triptych
from triptych.bundle import reader
from triptych.bundle.rounded import is_rounded
from triptych.errors import ConfigError
from triptych.infer import packed_weights
from triptych.infer.calibration import is_row_graph, trial
from triptych.infer.selection import ENGINES
from triptych.learn import VAE, VQVAE, WGANGP, Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

LETTERS = "\nabcdefghijk"


def models():
    yield VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(16,), latent_dim=3))
    yield WGANGP(WGANGP.Config(sample_shape=(1, 4, 4)))
    size = {"vocab_size": len(LETTERS), "block_size": 8, "layers": 2, "width": 32, "heads": 2}
    yield Transformer(Transformer.Config(positions="learned", tied_embeddings=False, **size))
    codes = {"channels": (8,), "codes": 12, "code_dim": 4, "prior_layers": 1, "prior_width": 32}
    yield VQVAE(VQVAE.Config(sample_shape=(1, 4, 4), classes=3, **codes))
    fsq = {"channels": (8,), "quantizer": "fsq", "levels": (4, 3), "prior_width": 32}
    yield VQVAE(VQVAE.Config(sample_shape=(3, 4, 8), residual_blocks=1, **fsq))


NAMES = ["vae", "wgan-gp", "transformer", "vq-vae, conditional", "vq-vae, fsq"]


@pytest.fixture(scope="module", params=range(len(NAMES)), ids=NAMES)
def exported(request, tmp_path_factory):
    torch.manual_seed(request.param)
    model = list(models())[request.param]
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    tokenizer = character_tokenizer(LETTERS).to_str() if model.family == "transformer" else None
    return model, export(model, folder, name="small", training={"seconds": 1.5}, tokenizer=tokenizer)


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_are_those_of_the_torch_model(exported, engine):
    model, folder = exported
    expected = model.sample(9, seed=11).numpy()
    if engine == "openvino" and model.family in ("transformer", "vq-vae"):
        with pytest.raises(ConfigError, match="it computes row graphs only"):
            triptych.load(folder, engine=engine)
        return
    with triptych.load(folder, engine=engine) as loaded:
        found = loaded.sample(9, seed=11)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 if found.dtype == np.float32 else 0)


def test_weights_are_on_disk_once(exported):
    model, folder = exported
    names = {name for name, _ in model.state_dict().items()}
    header_size = struct.unpack("<Q", (folder / "model.safetensors").read_bytes()[:8])[0]
    header = json.loads((folder / "model.safetensors").read_bytes()[8 : 8 + header_size])
    rounded = {name: part for name, part in header.items() if is_rounded(name)}
    assert rounded
    assert set(header) - {"__metadata__"} - set(rounded) == names
    beside = sum(end - start for start, end in (part["data_offsets"] for part in rounded.values()))
    weights = (folder / "model.safetensors").stat().st_size
    assert weights - header_size - 8 - beside == sum(t.nbytes for t in model.state_dict().values())
    for graph in reader.read(folder).manifest.graphs:
        proto = onnx.load(folder / graph.file, load_external_data=False)
        counted = Counter(tensor.name for tensor in proto.graph.initializer)
        assert set(counted) <= names | set(rounded)
        assert set(counted.values()) == {1}
        assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer)


def test_a_graph_says_nothing_of_the_machine_it_was_made_on(exported):
    _, folder = exported
    for graph in folder.glob("*.onnx"):
        for trace in (
            b".py",
            b"site-packages",
            str(Path.home()).encode(),
            str(Path(triptych.__file__).parent).encode(),
        ):
            assert trace not in graph.read_bytes()


def test_the_manifest_records_parity_and_batch_sizes(exported):
    _, folder = exported
    manifest = reader.read(folder).manifest
    assert manifest.training == {"seconds": 1.5}
    for graph in manifest.graphs:
        assert 0 <= graph.parity.max_abs_error <= graph.parity.tolerance
        is_exact = not any(part in graph.name for part in ("_int8", "_cache_"))
        assert graph.parity.tolerance < 1e-3 or not is_exact
        assert graph.row_buckets
        assert max(graph.row_buckets) >= 16


def test_any_onnx_reader_can_run_the_standard_graphs(exported):
    from onnx.reference import ReferenceEvaluator

    _, folder = exported
    with triptych.load(folder) as engine:
        for record in engine.manifest.graphs:
            if set(record.operator_sets) != {"ai.onnx"}:
                continue
            proto = onnx.load(folder / record.file)
            inputs = {}
            for spec in record.inputs:
                shape = [size if isinstance(size, int) else 2 for size in spec.shape]
                value = np.random.default_rng(0).random(shape)
                whole = np.dtype(spec.dtype).kind == "i"
                inputs[spec.name] = (np.full(shape, spec.high) if whole else value).astype(spec.dtype)
            outputs = ReferenceEvaluator(proto).run(None, inputs)
            found_by_name = engine.backend.run(record.name, inputs)
            for expected, found in zip(outputs, found_by_name.values(), strict=True):
                np.testing.assert_allclose(found, expected, atol=record.parity.tolerance * 4)


def test_a_bundle_is_complete_and_shows_what_it_makes(exported):
    model, folder = exported
    names = {path.name for path in folder.iterdir()}
    text = model.family == "transformer"
    assert {"manifest.json", "model.safetensors", "README.md"} < names
    assert ("samples.txt" if text else "samples.png") in names
    assert text == ("tokenizer.json" in names)
    assert "# small" in (folder / "README.md").read_text()


def test_packed_weights_from_the_cache_give_the_bytes_of_private_ones(exported, tmp_path, monkeypatch):
    _, folder = exported
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    monkeypatch.setattr(packed_weights, "MIN_BYTES", 0)
    with (
        triptych.load(folder, engine="onnxruntime") as private,
        triptych.load(folder, engine="onnxruntime", share_weights=True) as shared,
    ):
        shared.open()
        assert private.sample(9, seed=11).tobytes() == shared.sample(9, seed=11).tobytes()
        for graph in filter(is_row_graph, private.manifest.graphs):
            inputs = trial(private, graph, 8)
            wanted, found = (each.run_rows(graph.name, inputs) for each in (private, shared))
            assert {name: array.tobytes() for name, array in found.items()} == {
                name: array.tobytes() for name, array in wanted.items()
            }
    assert list((tmp_path / "packed").iterdir())
