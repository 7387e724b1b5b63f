"""Two small bundles, exported once: a VAE and a character Transformer."""

import pytest

import triptych
from triptych.learn import VAE, Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

LETTERS = "\n abcdefghijklmnopqrstuvwxyzäé."


@pytest.fixture(scope="session")
def vae_bundle(tmp_path_factory):
    config = VAE.Config(sample_shape=(1, 6, 5), hidden=(32,), latent_dim=4)
    return export(VAE(config), tmp_path_factory.mktemp("bundles") / "vae")


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory):
    config = Transformer.Config(
        vocab_size=len(LETTERS), block_size=16, layers=2, heads=4, kv_heads=2, width=64, window=9
    )
    tokenizer = character_tokenizer(LETTERS).to_str()
    return export(Transformer(config), tmp_path_factory.mktemp("bundles") / "text", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def vae(vae_bundle):
    with triptych.load(vae_bundle) as engine:
        yield engine


@pytest.fixture(scope="session")
def text(text_bundle):
    with triptych.load(text_bundle) as engine:
        yield engine
