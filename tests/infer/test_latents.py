"""Encoding, decoding and weighing examples with an engine: the learn side's formulas, and the same bytes."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import triptych
from triptych.bundle import noise
from triptych.bundle.manifest import WEIGHTS
from triptych.bundle.reader import Bundle
from triptych.bundle.weights import Weights
from triptych.errors import BundleRefused, InputError
from triptych.infer import formulas, latents
from triptych.infer.graph_runner import GraphRunner
from triptych.learn import VAE, WGANGP
from triptych.learn.export import export
from triptych.learn.maths.bounds import iwae
from triptych.learn.maths.gaussian import log_density, reparameterize

SHAPE = {"sample_shape": (1, 6, 5), "latent_dim": 4}
KINDS = {
    "bernoulli": {"hidden": (32,)},
    "learned": {"hidden": (32,), "likelihood": "gaussian", "sigma": "learned"},
    "conditional": {"hidden": (32,), "likelihood": "gaussian", "sigma": 0.5, "classes": 3},
}
X = np.random.default_rng(0).random((9, 1, 6, 5)).astype(np.float32)
LABELS = [0, 1, 2] * 3


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    torch.manual_seed(0)
    model = VAE(VAE.Config(**SHAPE, **KINDS[request.param])).eval()
    if request.param == "learned":
        model.pixel_log_var.data.fill_(-1.5)
    with triptych.load(export(model, tmp_path_factory.mktemp("latents") / "vae")) as engine:
        yield model, engine, {"label": LABELS} if request.param == "conditional" else None


@pytest.fixture(scope="module")
def gan(tmp_path_factory):
    model = WGANGP(WGANGP.Config(**SHAPE, generator_hidden=(32,), critic_hidden=(8,)))
    with triptych.load(export(model, tmp_path_factory.mktemp("latents") / "gan")) as engine:
        yield engine


@torch.no_grad()
def test_encode_decode_reconstruct_and_the_bound_are_those_of_the_model(pair):
    model, engine, condition = pair
    x, labels = torch.from_numpy(X), None if condition is None else torch.tensor(LABELS)
    mean, log_var = model.encode(x, labels)
    found = engine.encode(X, condition=condition)
    np.testing.assert_allclose(found.mean, mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.log_var, log_var.numpy(), atol=1e-5)
    again = model.reconstruct(x, labels).numpy()
    np.testing.assert_allclose(engine.reconstruct(X, condition=condition), again, atol=1e-5)
    draws = torch.from_numpy(noise.normal([3] * 9, range(9), (5, 4), domain=noise.POSTERIOR)).transpose(0, 1)
    z = reparameterize(mean, log_var, draws)
    prior = log_density(z, torch.zeros_like(mean), torch.zeros_like(log_var))
    expected = iwae(model.log_likelihood(x, z, labels) + prior - log_density(z, mean, log_var))
    bound = engine.log_prob(X, samples=5, seed=3, condition=condition)
    assert bound.shape == (9,)
    np.testing.assert_allclose(bound, expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("pair", ["learned"], indirect=True)
@pytest.mark.parametrize("stored", [{}, {"pixel_log_var": torch.zeros(1)}])
def test_weights_without_the_learned_sigma_are_refused_by_name(pair, stored, tmp_path):
    _, engine, _ = pair
    save_file(stored, tmp_path / WEIGHTS)
    bundle = Bundle(tmp_path, engine.manifest, Weights(tmp_path / WEIGHTS), {})
    with pytest.raises(BundleRefused, match=r"model\.safetensors: pixel_log_var"):
        latents.pixel_log_var(GraphRunner(bundle, engine.backend))


def test_a_bound_is_the_same_bytes_in_any_company(pair):
    _, engine, condition = pair
    few = None if condition is None else {"label": LABELS[:2]}
    for samples in (3, 1500):
        whole = engine.log_prob(X, samples=samples, condition=condition)
        assert whole[:2].tobytes() == engine.log_prob(X[:2], samples=samples, condition=few).tobytes()


def test_an_interpolation_begins_and_ends_at_its_latents(pair):
    _, engine, condition = pair
    label = None if condition is None else {"label": 1}
    a, b = np.float32([1, 0, 0, 0]), np.float32([0, 2, 0, 0])
    for spherical in (True, False):
        way = engine.interpolate(a, b, 5, spherical=spherical, condition=label)
        np.testing.assert_allclose(way[[0, -1]], engine.decode(np.stack([a, b]), condition=label), atol=1e-6)
    assert engine.traversal(condition=label).shape == (4, 7, 1, 6, 5)
    grid = engine.traversal(a, dimensions=[2], values=[0.0, 1.0], condition=label)
    assert grid[0, 0].tobytes() == engine.decode(a[None], condition=label)[0].tobytes()


@pytest.mark.parametrize("dimensions", [0, 4, [4], [-1], ["0"], "0", b"0", [], np.array(0)])
def test_dimensions_that_are_none_are_refused(gan, dimensions):
    with pytest.raises(InputError, match=r"dimensions: got .*; valid: (an integer|integers) from 0 to 3"):
        gan.traversal(dimensions=dimensions)


@pytest.mark.parametrize("steps", [1, 10**12, 2.0])
def test_a_number_of_steps_that_is_none_is_refused(gan, steps):
    with pytest.raises(InputError, match=r"steps: got .*; valid: an integer from 2 to 1000000"):
        gan.interpolate(np.zeros(4, np.float32), np.ones(4, np.float32), steps)


def test_a_conditional_model_must_be_told_the_label_of_an_example(pair):
    _, engine, condition = pair
    if condition is not None:
        with pytest.raises(InputError, match="condition: is missing"):
            engine.encode(X)


def test_an_arc_keeps_the_length_and_a_line_does_not():
    a, b, t = np.array([2.0, 0.0]), np.array([0.0, 2.0]), np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(formulas.spherical(a, b, t), [[2, 0], [2**0.5, 2**0.5], [0, 2]], atol=1e-15)
    np.testing.assert_allclose(formulas.linear(a, b, t), [[2, 0], [1, 1], [0, 2]])
    np.testing.assert_allclose(formulas.spherical(a, -a, t), formulas.linear(a, -a, t))


def test_a_gan_has_no_encoder_and_no_likelihood_but_decodes(gan):
    for refused in (gan.encode, gan.reconstruct):
        with pytest.raises(InputError, match="has no encoder"):
            refused(X)
    with pytest.raises(InputError, match="has no likelihood"):
        gan.log_prob(X)
    z = noise.normal([5] * 3, range(3), (4,))
    assert gan.decode(z).tobytes() == gan.sample(3, seed=5).tobytes()


def test_truncation_bounds_the_latents_and_keeps_those_within(gan):
    whole, cut = (noise.normal([1] * 50, range(50), (4,), truncation=limit) for limit in (None, 0.7))
    assert np.abs(cut).max() <= 0.7
    assert (cut[np.abs(whole) <= 0.7] == whole[np.abs(whole) <= 0.7]).all()
    assert gan.sample(50, seed=1, truncation=0.7).tobytes() == gan.decode(cut).tobytes()
    for limit in (0, -1, True, "1", float("nan")):
        with pytest.raises(InputError, match="truncation"):
            gan.sample(1, truncation=limit)


def test_a_stream_is_the_samples_in_batches(pair, gan):
    for engine in (pair[1], gan):
        batches = list(engine.sample_stream(70, seed=2, batch=32))
        assert [len(batch) for batch in batches] == [32, 32, 6]
        assert np.concatenate(batches).tobytes() == engine.sample(70, seed=2).tobytes()
    with pytest.raises(InputError, match="batch"):
        gan.sample_stream(1, batch=0)


def test_text_has_no_latents(text):
    for call in (lambda: text.encode(X), lambda: text.sample(1, truncation=1.0)):
        with pytest.raises(InputError, match="has no latents"):
            call()
