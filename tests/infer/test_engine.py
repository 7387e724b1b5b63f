import dataclasses
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import triptych
from triptych.bundle import noise, reader
from triptych.bundle.consistency import problems
from triptych.errors import BundleNotFound, BundleRefused, ConfigError, InputError, NotFoundError
from triptych.infer import Engine
from triptych.infer.onnx_runtime import OnnxRuntimeBackend
from triptych.learn.data.text import character_tokenizer

rows = st.lists(st.tuples(st.integers(0, noise.MAX_SEED), st.integers(0, 1000)), min_size=1, max_size=150)


@given(rows, st.data())
def test_a_sample_is_the_same_bytes_in_any_company(vae, rows, data):
    seeds, indices = zip(*rows, strict=True)
    batch = vae.sample_rows(seeds, indices)
    row = data.draw(st.integers(0, len(rows) - 1))
    alone = vae.sample_rows(seeds[row : row + 1], indices[row : row + 1])
    assert batch[row].tobytes() == alone[0].tobytes()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_sample_is_the_same_bytes_with_any_number_of_threads(vae, vae_bundle, threads):
    with triptych.load(vae_bundle, threads=threads) as other:
        assert other.sample(100, seed=5).tobytes() == vae.sample(100, seed=5).tobytes()


def test_sample_number_i_belongs_to_seed_and_i(vae):
    assert vae.sample(7, seed=3).tobytes() == vae.sample_rows([3] * 7, range(7)).tobytes()
    assert vae.sample(3, seed=3).tobytes() != vae.sample(3, seed=4).tobytes()
    assert vae.sample(130).shape == (130, 1, 6, 5)


@pytest.mark.parametrize(
    ("seeds", "indices", "where"),
    [
        ([1, 2], [3], "sample_rows"),
        ([], [], "sample_rows"),
        ([1], [-1], "indices"),
        ([1, 1], range(-1, 1), "indices"),
        ([1], [2**63], "indices"),
        ([1], [0.5], "indices"),
        ([-1], [0], "seed"),
    ],
)
def test_rows_that_are_none_are_refused(vae, text, seeds, indices, where):
    for engine in (vae, text):
        with pytest.raises(InputError, match=where):
            engine.sample_rows(seeds, indices)


@pytest.mark.parametrize("slots", [0, -1, "4", True, 2.0, 10**9])
def test_a_loop_has_some_slots(text, slots):
    with pytest.raises(InputError, match="slots"):
        text.decode_loop(slots)


def test_run_is_the_same_bytes_in_any_batch(vae):
    z = np.random.default_rng(0).standard_normal((70, 4), np.float32)
    whole = vae.run("decode", {"z": z})["x"]
    assert whole.tobytes() == b"".join(vae.run("decode", {"z": row[None]})["x"].tobytes() for row in z)


def test_large_batches_are_among_the_sizes_and_change_no_byte(vae):
    assert max(vae.graph("decode").row_buckets) == 1024
    z = np.random.default_rng(1).standard_normal((3000, 4), np.float32)
    whole = vae.run("decode", {"z": z})["x"]
    for row in (0, 255, 256, 767, 895, 960, 992, 999, 1023, 1024, 2047, 2048, 2559, 2560, 2999):
        assert whole[row].tobytes() == vae.run("decode", {"z": z[row : row + 1]})["x"].tobytes()


def test_run_takes_lists_of_numbers(vae):
    z = [[0, 1, 2, 3]]
    assert (vae.run("decode", {"z": z})["x"] == vae.run("decode", {"z": np.array(z, np.float32)})["x"]).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'z' is missing"),
        (None, "got NoneType; valid: arrays by name"),
        (5, "got int"),
        ({"z": np.zeros((1, 4), np.float32), "y": 1}, "no input 'y'"),
        ({"z": np.zeros((1, 4))}, "dtype float64; valid: float32 of shape"),
        ({"z": np.zeros((1, 4), np.int32)}, "dtype int32"),
        ({"z": np.zeros((1, 5), np.float32)}, r"shape \(1, 5\)"),
        ({"z": np.zeros(4, np.float32)}, r"shape \(4,\)"),
        ({"z": np.zeros((0, 4), np.float32)}, r"shape \(0, 4\)"),
        ({"z": np.full((1, 4), np.nan, np.float32)}, "NaN"),
        ({"z": np.full((1, 4), np.inf, np.float32)}, "infinity"),
        ({"z": [[1.0, 2.0], [1.0]]}, "not an array"),
        ({"z": [["a", "b", "c", "d"]]}, "dtype"),
        ({"z": None}, "dtype object"),
        ({"z": [[1e300, 0, 0, 0]]}, "infinity"),
    ],
)
def test_an_input_the_graph_does_not_take_is_named(vae, inputs, message):
    with pytest.raises(InputError, match=message):
        vae.run("decode", inputs)


def test_values_out_of_the_declared_range_are_refused(vae):
    with pytest.raises(InputError, match=r"encode\.x: holds values from 0.0 to 2.0; valid: 0.0 to 1.0"):
        vae.run("encode", {"x": np.linspace(0, 2, 30, dtype=np.float32).reshape(1, 1, 6, 5)})


def test_tokens_out_of_the_vocabulary_are_refused(text):
    for token in (-1, 31, 2**40):
        with pytest.raises(InputError):
            text.run("score", {"tokens": [[token]]})


def test_more_tokens_than_a_model_sees_are_refused(text):
    """A client's mistake, and no failure of the model's: HTTP answers 400."""
    block = text.text_sampler.block_size
    with pytest.raises(InputError, match=rf"score\.tokens: got {block + 1} tokens; valid: 1 to {block}"):
        text.run("score", {"tokens": [[0] * (block + 1)]})
    past = {
        spec.name: np.zeros((1, *spec.shape[1:]), np.float32) for spec in text.graph("next_token").inputs[3:]
    }
    step = {"tokens": [[0, 0]], "seqlens_k": [1], "total_sequence_length": block, **past}
    with pytest.raises(InputError, match=rf"total_sequence_length: got {block}; valid: 2 for 2 tokens"):
        text.run("next_token", step)
    assert text.check("next_token", step | {"total_sequence_length": 2})["total_sequence_length"].shape == ()
    assert text.run("next_token", step | {"total_sequence_length": 2})["logits"].shape[0] == 1


def test_a_step_of_several_texts_can_be_run_as_any_graph(text):
    """Its inputs are rows and a scalar that is for all of them."""
    specs = text.graph("next_token").inputs[3:]
    for rows in (1, 3, 5):
        past = {spec.name: np.zeros((rows, *spec.shape[1:]), np.float32) for spec in specs}
        tokens = np.arange(2 * rows).reshape(rows, 2) % 7
        told = {"tokens": tokens, "seqlens_k": [1] * rows, "total_sequence_length": 2}
        logits = text.run("next_token", told | past)["logits"]
        scores = text.run("score", {"tokens": tokens})["logits"][:, -1]
        np.testing.assert_allclose(logits, scores, rtol=0, atol=1e-5)


def test_an_unknown_graph_is_named_with_the_nearest(vae):
    with pytest.raises(NotFoundError, match="has no graph 5"):
        vae.run(5, {})
    with pytest.raises(NotFoundError, match=r"has no graph \['decode'\]; valid: decode"):
        vae.run(["decode"], {})
    with pytest.raises(NotFoundError, match=r"has no tensor \['decode'\]"):
        vae.tensor(["decode"])
    with pytest.raises(NotFoundError, match="Did you mean `decode`"):
        vae.run("decoder", {})


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3", None, 2**70])
def test_a_number_of_samples_that_is_none_is_refused(vae, n):
    with pytest.raises(InputError, match="n: got"):
        vae.sample(n)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_a_seed_out_of_range_is_refused(vae, seed):
    with pytest.raises(InputError, match="seed"):
        vae.sample(1, seed=seed)


@pytest.mark.parametrize(
    "tokenizer",
    ["", "{}", "null", '{"version":"1.0"}', character_tokenizer("".join(map(chr, range(97, 197)))).to_str()],
)
def test_a_tokenizer_that_is_none_or_too_large_is_refused_by_name(text_bundle, tokenizer):
    bundle = dataclasses.replace(reader.read(text_bundle), tokenizer=tokenizer)
    with Engine(bundle, OnnxRuntimeBackend(bundle, 1)) as engine:
        with pytest.raises(BundleRefused, match=r"text/tokenizer\.json"):
            engine.open()
        with pytest.raises(BundleRefused, match=r"text/tokenizer\.json"):
            engine.generate("a")


@pytest.mark.parametrize("name", ["vocab_size", "block_size", "layers", "kv_heads", "head_dim"])
@pytest.mark.parametrize("change", [-1000, 1])
def test_a_text_sampler_that_does_not_fit_its_graphs_is_a_problem(text_bundle, name, change):
    manifest = reader.read(text_bundle).manifest
    sampler = msgspec.structs.replace(manifest.sampler, **{name: getattr(manifest.sampler, name) + change})
    assert not list(problems(manifest))
    assert list(problems(msgspec.structs.replace(manifest, sampler=sampler)))


@pytest.mark.parametrize("name", ["graph", "score_graph"])
def test_a_text_sampler_that_names_no_graph_is_a_problem(text_bundle, name):
    manifest = reader.read(text_bundle).manifest
    sampler = msgspec.structs.replace(manifest.sampler, **{name: "nowhere"})
    assert "nowhere" in next(problems(msgspec.structs.replace(manifest, sampler=sampler)))


def test_a_step_of_a_text_without_batch_sizes_is_a_problem_unless_it_is_refused(text_bundle):
    manifest = reader.read(text_bundle).manifest
    sampler = manifest.sampler

    def found(name, sampler):
        graphs = [
            msgspec.structs.replace(graph, row_buckets=()) if graph.name == name else graph
            for graph in manifest.graphs
        ]
        return list(problems(msgspec.structs.replace(manifest, graphs=tuple(graphs), sampler=sampler)))

    for name in (sampler.graph, sampler.standard_graph):
        assert found(name, sampler) == [f"{name} has no row_buckets"]
    lower, *others = sampler.precisions
    for refused, expected in ("", [f"{lower.graph} has no row_buckets"]), ("its bytes vary", []):
        judged = msgspec.structs.replace(lower, refused=refused)
        assert found(lower.graph, msgspec.structs.replace(sampler, precisions=(judged, *others))) == expected


def test_settings_without_effect_are_errors(vae):
    with pytest.raises(InputError, match="condition"):
        vae.sample(1, condition=3)
    with pytest.raises(InputError, match="does not generate text"):
        vae.generate("a")


def test_labels_of_a_model_without_labels_are_refused(vae, text):
    for engine in (vae, text):
        with pytest.raises(InputError, match=r"got \{'label': \[7\]\}; valid: nothing: .* no condition"):
            engine.sample_rows([0], [0], [7])


@pytest.mark.parametrize("truncation", [pytest.param(10**400, id="10**400"), float("nan"), "1", 0])
def test_a_truncation_that_is_no_number_of_a_float_is_refused(vae, truncation):
    with pytest.raises(InputError, match="truncation: got"):
        vae.sample(1, truncation=truncation)


def test_unknown_engines_and_thread_counts_are_refused(vae_bundle, tmp_path):
    with pytest.raises(ConfigError, match="valid: auto, onnxruntime"):
        triptych.load(vae_bundle, engine="onyx")
    with pytest.raises(ConfigError, match="engine: got None"):
        triptych.load(vae_bundle, engine=None)
    for threads in (0, -1, 1.5, True, 10**9):
        with pytest.raises(ConfigError, match="threads"):
            triptych.load(vae_bundle, threads=threads)
    with pytest.raises(BundleNotFound):
        triptych.load(tmp_path)


def test_nothing_here_imports_torch_or_onnx(vae_bundle, text_bundle):
    code = (
        "import sys, triptych\n"
        "assert 'numpy' not in sys.modules\n"
        "triptych.load(sys.argv[1]).sample(2)\n"
        "triptych.load(sys.argv[2]).generate('a')\n"
        "import triptych.cli; triptych.cli.register()\n"
        "assert not {'torch', 'onnx', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, vae_bundle, text_bundle], check=True, timeout=60)
