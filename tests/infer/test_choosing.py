"""Each change of logits against `transformers`' own, and each against its formula."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from triptych.errors import BundleError
from triptych.infer.choosing import History, adjusted, choose
from triptych.infer.request import GenerationRequest

SIZE = 12
logits = st.lists(st.integers(-40, 40), min_size=SIZE, max_size=SIZE, unique=True).map(
    lambda x: np.array(x, np.float32) / 8
)
tokens = st.lists(st.integers(0, SIZE - 1), max_size=6)


def reached(logits, request):
    """Every token that some number in [0, 1) stands for."""
    return {choose(logits, request, uniform) for uniform in np.linspace(0, 1, 2_001)[:-1]}


@given(logits, tokens, st.sampled_from([0.5, 1.3, 4.0]))
def test_repetition_is_penalized_as_in_transformers(x, text, penalty):
    history = History(text)
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([text], dtype=torch.long), torch.tensor(x)[None].double()
    )[0]
    ours = adjusted(x, GenerationRequest(prompt="", repetition_penalty=penalty), history)
    assert np.allclose(ours, theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize(
    ("setting", "warper"),
    [
        ({"top_k": 3}, TopKLogitsWarper(3)),
        ({"top_p": 0.7}, TopPLogitsWarper(0.7)),
        ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    ],
)
def test_the_tokens_kept_are_those_transformers_keeps(setting, warper):
    for seed in range(8):
        x = np.random.default_rng(seed).normal(0, 1, SIZE).astype(np.float32)
        kept = warper(torch.zeros((1, 1), dtype=torch.long), torch.tensor(x)[None].double())[0]
        expected = set(np.flatnonzero(np.isfinite(kept.numpy())).tolist())
        assert reached(x, GenerationRequest(prompt="", **setting)) == expected


@given(logits, tokens, tokens, st.floats(-2, 2), st.floats(-2, 2), st.floats(-100, 100))
def test_penalties_of_what_was_made_are_openais_formula(x, prompt, made, frequency, presence, bias):
    history = History(prompt)
    for token in made:
        history.add(token)
    request = GenerationRequest(
        prompt="", frequency_penalty=frequency, presence_penalty=presence, logit_bias={3: bias}
    )
    counts = np.bincount(np.array(made, int), minlength=SIZE)
    expected = x.astype(np.float64) - counts * frequency - (counts > 0) * presence
    expected[3] += bias
    assert np.allclose(adjusted(x, request, history), expected)


@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-300, 1e-30])
@pytest.mark.parametrize("setting", [{}, {"top_k": 3}, {"top_p": 5e-324}, {"min_p": 1.0}])
def test_a_temperature_next_to_zero_takes_the_likeliest(temperature, setting):
    x = np.random.default_rng(0).normal(0, 10, SIZE).astype(np.float32)
    assert reached(x, GenerationRequest(prompt="", temperature=temperature, **setting)) == {int(x.argmax())}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error_and_no_token(temperature, number):
    x = np.zeros(SIZE, np.float32)
    x[3] = number
    with pytest.raises(BundleError, match="NaN or infinity"):
        choose(x, GenerationRequest(prompt="", temperature=temperature), 0.5)
