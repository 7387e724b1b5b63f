"""A conditional bundle: the label is an input of the graph, and the same request gives the same bytes."""

import msgspec
import numpy as np
import pytest
import torch

import triptych
from triptych.bundle import reader
from triptych.bundle.condition import row_labels
from triptych.bundle.consistency import problems
from triptych.errors import InputError
from triptych.learn import VAE, WGANGP
from triptych.learn.export import export

SHAPE = {"sample_shape": (1, 6, 5), "classes": 3, "latent_dim": 4}


@pytest.fixture(scope="module", params=["vae", "wgan-gp"])
def pair(request, tmp_path_factory):
    torch.manual_seed(0)
    if request.param == "vae":
        model = VAE(VAE.Config(**SHAPE, hidden=(32,)))
    else:
        model = WGANGP(WGANGP.Config(**SHAPE, generator_hidden=(32,), critic_hidden=(8,)))
    folder = export(model, tmp_path_factory.mktemp("bundles") / request.param)
    with triptych.load(folder) as engine:
        yield model, engine


def test_the_manifest_names_the_condition_and_its_range(pair):
    sampler = pair[1].manifest.sampler
    assert (sampler.condition.name, sampler.condition.dtype, sampler.classes) == ("label", "int64", 3)
    assert sampler.condition in pair[1].graph(sampler.graph).inputs


@pytest.mark.parametrize("condition", [None, {"label": 2}, {"label": [2, 0, 1, 1, 0]}])
def test_the_engine_draws_what_the_model_draws(pair, condition):
    model, engine = pair
    expected = model.eval().sample(5, seed=3, condition=condition).numpy()
    np.testing.assert_allclose(engine.sample(5, seed=3, condition=condition), expected, atol=1e-5)


def test_a_sample_is_the_same_bytes_in_any_company(pair):
    engine = pair[1]
    labels = [index * 7 % 3 for index in range(70)]
    whole = engine.sample(70, seed=5, condition={"label": labels})
    for index in (0, 1, 33, 69):
        alone = engine.sample_rows([5], [index], [labels[index]])
        assert alone[0].tobytes() == whole[index].tobytes()
    assert engine.sample(4, seed=5, condition={"label": 0}).tobytes() != whole[:4].tobytes()
    assert engine.sample(4, seed=5).tobytes() == engine.sample_rows([5] * 4, range(4), [0, 1, 2, 0]).tobytes()


@pytest.mark.parametrize(
    "condition",
    [1, "1", [0, 1], {"label": 3}, {"label": -1}, {"label": None}, {"label": [0]}, {"label": 0, "x": 1}, {}],
)
def test_a_condition_the_model_does_not_take_is_refused(pair, condition):
    with pytest.raises(InputError, match="condition"):
        pair[1].sample(2, condition=condition)


def test_a_label_out_of_range_never_reaches_the_graph(pair):
    with pytest.raises(InputError, match=r"condition\.label: got 3; valid: an integer from 0 to 2"):
        pair[1].sample_rows([0], [0], [3])
    with pytest.raises(InputError, match="labels: got 3; valid: one label per row"):
        pair[1].sample_rows([0], [0], 3)
    graph = pair[1].manifest.sampler.graph
    with pytest.raises(InputError, match=f"{graph}.label: holds values from 3 to 3"):
        pair[1].run(graph, {"z": np.zeros((1, 4), np.float32), "label": [3]})


def test_an_array_of_labels_is_a_list_of_labels():
    assert row_labels({"label": np.array([1, 0])}, 2, 3) == [1, 0]
    assert row_labels({"label": np.int64(2)}, 2, 3) == [2, 2]
    assert row_labels(None, 2, None) is None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "kind"},
        {"dtype": "int32"},
        {"high": None},
        {"high": 9},
        {"low": -1},
        {"shape": ("batch", 2)},
    ],
)
def test_a_condition_that_does_not_fit_its_graph_is_a_problem(pair, change):
    manifest = pair[1].manifest
    condition = msgspec.structs.replace(manifest.sampler.condition, **change)
    sampler = msgspec.structs.replace(manifest.sampler, condition=condition)
    assert not list(problems(manifest))
    assert list(problems(msgspec.structs.replace(manifest, sampler=sampler)))


def test_a_bundle_without_a_condition_says_nothing_of_one(vae_bundle):
    document = msgspec.json.decode((vae_bundle / "manifest.json").read_bytes())
    assert set(document["sampler"]) == {"kind", "graph", "input", "output", "latent_shape"}
    assert reader.read(vae_bundle).manifest.sampler.classes is None
