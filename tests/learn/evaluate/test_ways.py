"""What another way of computing changes on data: nothing for the same way, and the model's own figures."""

from pathlib import Path

import pytest
import torch

import triptych
from triptych.errors import ConfigError
from triptych.learn.data.split import ArraySplit, WindowSplit
from triptych.learn.data.text import character_tokenizer
from triptych.learn.evaluate import evaluate, ways
from triptych.learn.export import export
from triptych.learn.models import VAE, WGANGP, Transformer


def test_the_nll_of_a_text_is_that_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Transformer.Config(vocab_size=9, block_size=8, layers=1, width=16, heads=2)
    model, split = Transformer(config), WindowSplit(torch.randint(9, (83,)), block_size=8)
    folder = export(model, tmp_path / "text", tokenizer=character_tokenizer("abcdefghi").to_str())
    with triptych.load(folder) as exact, triptych.load(folder, precision="int8") as other:
        same, found = ways.change(exact, exact, split), ways.change(exact, other, split)
    wanted = evaluate(model, split)
    assert same["nll_nats_per_token_change"] == 0
    assert same["numbers"] == wanted["tokens"] == 82
    assert same["nll_nats_per_token"] == pytest.approx(wanted["nll_nats_per_token"], abs=1e-5)
    assert 0 < abs(found["nll_nats_per_token_change"]) < 0.01
    total = found["nll_nats_per_token_f32"] + found["nll_nats_per_token_change"]
    assert total == pytest.approx(found["nll_nats_per_token"])


@pytest.mark.parametrize("classes", [None, 3])
def test_the_bound_of_a_vae_is_that_of_the_model(classes: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VAE(VAE.Config(sample_shape=(1, 6, 5), hidden=(32,), latent_dim=4, classes=classes))
    labels = None if classes is None else torch.arange(300) % classes
    split = ArraySplit(torch.rand(300, 1, 6, 5), labels)
    folder = export(model, tmp_path / "vae")
    with triptych.load(folder) as exact, triptych.load(folder, precision="int8") as other:
        found = ways.change(exact, other, split)
    wanted = evaluate(model, split)
    off = abs(found["elbo_nats_f32"] - wanted["elbo_nats"])
    assert off < 4 * wanted["elbo_nats_standard_error"], "the noise is another"
    assert found["numbers"] == 300
    assert 0 < abs(found["elbo_nats_change"]) < 0.05
    assert found["elbo_nats_change_standard_error"] < wanted["elbo_nats_standard_error"] / 10


def test_a_model_without_a_likelihood_is_refused(tmp_path: Path) -> None:
    model = WGANGP(WGANGP.Config(sample_shape=(2,), generator_hidden=(8,), critic_hidden=(8,)))
    said = r"a wgan-gp has no likelihood.*inspect"
    with triptych.load(export(model, tmp_path / "gan")) as engine, pytest.raises(ConfigError, match=said):
        ways.change(engine, engine, ArraySplit(torch.rand(3, 2)))
