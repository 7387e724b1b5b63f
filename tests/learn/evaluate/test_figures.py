"""What a model card reports."""

import math
from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from triptych.learn.data.split import ArraySplit, WindowSplit
from triptych.learn.evaluate import evaluate
from triptych.learn.evaluate.text import token_sizes
from triptych.learn.models import VAE, WGANGP, Batch, Transformer
from triptych.learn.models.figures import mean_and_error


def test_the_standard_error_is_the_deviation_over_the_root_of_the_count() -> None:
    figures = mean_and_error("nats", [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])])
    assert figures["nats"] == 3.0
    assert figures["nats_standard_error"] == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)


def test_a_vaes_iwae_is_above_its_elbo() -> None:
    torch.manual_seed(0)
    model = VAE(VAE.Config(sample_shape=(1, 3, 3), hidden=(8,), latent_dim=4))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)  # a posterior that fits badly
    figures = evaluate(model, ArraySplit(torch.rand(300, 1, 3, 3)))
    assert figures["iwae_nats"] > figures["elbo_nats"]
    assert figures["examples"] == 300


def test_figures_do_not_depend_on_the_size_of_batches_where_no_noise_is_drawn() -> None:
    torch.manual_seed(0)
    model = Transformer(Transformer.Config(vocab_size=7, block_size=5, layers=1, width=8, heads=2))
    split = WindowSplit(torch.randint(7, (63,)), block_size=5)
    small, large = (evaluate(model, split, batch_size=size) for size in (2, 100))
    assert small == pytest.approx(large)
    assert small["tokens"] == 62
    assert small["perplexity"] == pytest.approx(math.exp(small["nll_nats_per_token"]))


def test_a_gan_that_repeats_the_data_has_no_distance_to_it() -> None:
    torch.manual_seed(0)
    model = WGANGP(
        WGANGP.Config(sample_shape=(1, 3, 3), latent_dim=9, generator_hidden=(), critic_hidden=(4,))
    )
    perfect = evaluate(model, ArraySplit(model.sample(200)))
    other = evaluate(model, ArraySplit(torch.rand(200, 1, 3, 3)))
    assert perfect["sliced_w1"] == pytest.approx(0.0, abs=1e-6)
    assert perfect["frechet_pca"] == pytest.approx(0.0, abs=1e-6)
    assert other["sliced_w1"] > 0.01
    assert other["frechet_pca"] > 0.01


def words(tokens: dict[str, int]) -> str:
    return Tokenizer(models.WordLevel(tokens, unk_token="a")).to_str()


def test_a_character_is_as_many_bytes_as_utf8_makes_it() -> None:
    assert token_sizes(words({"a": 0, "é": 1, "€": 2})).tolist() == [1, 2, 3]


def test_a_byte_level_token_is_as_many_bytes_as_it_stands_for() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "Ã": 1, "©": 2, "Ã©": 3}, [("Ã", "©")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    assert tokenizer.encode("é").ids == [3]
    assert token_sizes(tokenizer.to_str()).tolist() == [1, 1, 1, 2]


def test_bits_per_byte_counts_the_bytes_of_the_predicted_text() -> None:
    model = Transformer(Transformer.Config(vocab_size=2, block_size=4, layers=1, width=8, heads=2))
    torch.nn.init.zeros_(model.embedding.weight)  # every guess is a coin toss: one bit per token
    split = WindowSplit(torch.tensor([0, 1] * 10 + [0]), block_size=4)
    figures = evaluate(model, split, tokenizer=words({"a": 0, "é": 1}))
    assert figures["bits_per_byte"] == pytest.approx(20 / 30)
    assert "bits_per_byte" not in evaluate(model, split)


class Failing(ArraySplit):
    """A split that breaks in the middle."""

    def whole(self, batch_size: int) -> Iterator[tuple[Batch, int]]:
        yield next(super().whole(batch_size))
        raise OSError("the disk is gone")


def test_a_failure_leaves_the_model_in_the_mode_it_was_in() -> None:
    model, x = VAE(VAE.Config(sample_shape=(1, 3, 3), hidden=(8,), latent_dim=4)), torch.rand(3, 1, 3, 3)
    with pytest.raises(OSError, match="disk"):
        evaluate(model, Failing(x))
    assert model.training


def test_no_gradient_is_kept() -> None:
    model = WGANGP(WGANGP.Config(sample_shape=(1, 3, 3), generator_hidden=(), critic_hidden=(4,)))
    seen: list[Tensor] = []
    model.generator.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    evaluate(model, ArraySplit(torch.rand(30, 1, 3, 3)))
    assert seen
    assert not any(output.requires_grad for output in seen)
