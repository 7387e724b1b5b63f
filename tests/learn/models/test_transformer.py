"""The Transformer's settings, cache and sampling."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from triptych.bundle import noise
from triptych.errors import ConfigError, InputError
from triptych.learn.models import Batch, Progress, Transformer
from triptych.learn.models.transformer import choose
from triptych.learn.nn import Mask

TINY = {"vocab_size": 11, "block_size": 8, "layers": 2, "heads": 4, "width": 16}


def transformer(**settings: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(Transformer.Config(**TINY | settings))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"width": 18}, "width"),
        ({"width": 12, "heads": 4}, "width"),  # heads of 3: rotary positions turn pairs
        ({"heads": 0}, "heads"),
        ({"kv_heads": 3}, "kv_heads"),
        ({"kv_heads": 0}, "kv_heads"),
        ({"window": 0}, "window"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"block_size": -1}, "block_size"),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it(settings: dict, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{where}: .*valid:"):
        Transformer.Config(**TINY | settings)


def test_learned_positions_allow_odd_heads() -> None:
    assert transformer(width=12, positions="learned").sample(1).shape == (1, 8)


def test_a_fresh_model_pays_log_v_nats_per_token() -> None:
    model = transformer()
    tokens = torch.randint(11, (50, 9))
    terms = model.loss(Batch(tokens), model.turns()[0], Progress())
    assert terms.total.item() == pytest.approx(math.log(11), rel=0.02)


def test_the_loss_predicts_each_token_from_those_before_it() -> None:
    model, tokens = transformer(block_size=9).eval(), torch.randint(11, (3, 9))
    expected = cross_entropy(model(tokens)[:, :8].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(model.validate(Batch(tokens)).total, expected)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("mask", [Mask.causal(), Mask.window(3), Mask.prefix(2), Mask.full()])
def test_cached_logits_are_uncached_logits(positions: str, kv_heads: int | None, mask: Mask) -> None:
    model = transformer(positions=positions, kv_heads=kv_heads).double().eval()
    model.mask = mask
    tokens, cache = torch.randint(11, (3, 8)), model.cache(3)
    pieces = [8] if mask.looks_ahead else [2, 1, 1, 3, 1]
    with torch.no_grad():
        cached = torch.cat([model(piece, cache) for piece in tokens.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(cached, model(tokens))


def test_no_logit_depends_on_a_later_token() -> None:
    model = transformer(window=4).eval()
    tokens = torch.randint(11, (1, 8))
    with torch.no_grad():
        before = model(tokens)
        changed = tokens.clone()
        changed[0, 5] = (changed[0, 5] + 1) % 11
        after = model(changed)
    assert before[:, :5].equal(after[:, :5])
    assert not before[:, 5].equal(after[:, 5])


def test_sampling_with_the_cache_is_sampling_without_it() -> None:
    model = transformer().eval()
    prompt, seed = [3, 1, 4], 9
    tokens = torch.tensor([prompt, prompt])
    streams = [noise.stream(seed, index, noise.TOKEN) for index in range(2)]
    with torch.no_grad():
        while tokens.shape[1] < 8:
            uniform = torch.tensor([[stream.random()] for stream in streams], dtype=torch.float64)
            tokens = torch.cat((tokens, choose(model(tokens)[:, -1], uniform)), dim=1)
    assert model.sample(2, seed=seed, condition=prompt).equal(tokens)


def test_samples_begin_with_their_prompt_or_with_token_zero() -> None:
    model = transformer()
    assert model.sample(2, condition=[5, 6])[:, :2].tolist() == [[5, 6], [5, 6]]
    assert model.sample(2, condition=torch.tensor([5, 6]))[:, :2].tolist() == [[5, 6], [5, 6]]
    assert model.sample(2)[:, 0].tolist() == [0, 0]
    assert model.sample(1, condition=list(range(8))).tolist() == [list(range(8))]


@pytest.mark.parametrize("prompt", [[], [11], [-1], [0.5], "abc", [0] * 9, [[1]]])
def test_a_prompt_that_is_no_list_of_token_ids_is_refused(prompt: object) -> None:
    with pytest.raises(InputError, match="1 to 8 token ids from 0 to 10"):
        transformer().sample(1, condition=prompt)


def test_tokens_are_drawn_with_their_probability() -> None:
    probability = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    uniform = (torch.arange(10_000, dtype=torch.float64)[:, None] + 0.5) / 10_000
    tokens = choose(probability.log().expand(10_000, 4), uniform)
    assert torch.bincount(tokens[:, 0], minlength=4).tolist() == [1000, 0, 6000, 3000]


def test_the_first_and_last_uniform_number_choose_a_token_that_can_be() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, 4)
    uniform = torch.tensor([[0.0], [1 - 2**-53]], dtype=torch.float64)
    assert choose(logits, uniform).tolist() == [[1], [2]]


def test_tied_embeddings_are_one_tensor() -> None:
    assert "head.weight" not in transformer().state_dict()
    assert "head.weight" in transformer(tied_embeddings=False).state_dict()


def test_dropout_acts_in_training_only() -> None:
    model, tokens = transformer(dropout=0.5), torch.randint(11, (2, 8))
    assert not model(tokens).equal(model(tokens))
    model.eval()
    assert model(tokens).equal(model(tokens))
