"""What a lower precision changes."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from triptych.bundle.manifest import TensorSpec
from triptych.infer import formulas
from triptych.infer.quality import measured, quality, verdict


def test_divergences_are_those_of_torch():
    draw = np.random.default_rng(0)
    p, q = draw.uniform(0.01, 0.99, (2, 5, 7))
    expected = kl_divergence(Bernoulli(torch.from_numpy(p)), Bernoulli(torch.from_numpy(q))).sum(-1)
    np.testing.assert_allclose(formulas.kl_bernoulli(p, q), expected)
    mean, other, log_var, other_log_var = draw.standard_normal((4, 5, 7))
    ours = formulas.kl_gaussian(mean, other, log_var, other_log_var)
    pair = [
        Normal(torch.from_numpy(m), torch.from_numpy(np.exp(v / 2)))
        for m, v in ((mean, log_var), (other, other_log_var))
    ]
    np.testing.assert_allclose(ours, kl_divergence(*pair).sum(-1))


def test_a_decoder_is_judged_in_nats(vae):
    x = vae.sample(8)
    found = quality(vae, vae.graph("decode"), {"x": x}, {"x": x})
    assert (found.measure, found.value) == ("kl_nats", 0.0)
    assert quality(vae, vae.graph("decode"), {"x": x}, {"x": 1 - x}).value > 0.1


def test_an_encoder_is_judged_in_nats(vae):
    outputs = vae.run("encode", {"x": vae.sample(8)})
    shifted = {"mean": outputs["mean"] + 1, "log_var": outputs["log_var"]}
    expected = 0.5 * np.exp(-outputs["log_var"].astype(float)).sum(-1).mean()
    found = quality(vae, vae.graph("encode"), outputs, shifted)
    assert found.measure == "kl_nats"
    assert found.value == pytest.approx(expected, rel=1e-5)


def test_outputs_without_a_likelihood_are_judged_by_their_range(vae):
    from msgspec.structs import replace

    graph = replace(
        vae.graph("decode"), name="generate", outputs=(TensorSpec(name="x", shape=(), low=-1.0, high=1.0),)
    )
    x = np.zeros((4, 3))
    found = quality(vae, graph, {"x": x}, {"x": x + 0.5})
    assert (found.measure, found.value) == ("rms_error", 0.25)


@pytest.mark.parametrize(
    ("measure", "value", "said"), [("kl_nats", 0.3, "0.3 nats"), ("rms_error", 0.1, "0.1 of")]
)
def test_the_verdict_names_the_figure(measure, value, said):
    assert said in verdict(measured(measure, value))
    assert verdict(measured(measure, 0.0)) == ""
    assert verdict(measured(measure, float("nan"))) != ""
