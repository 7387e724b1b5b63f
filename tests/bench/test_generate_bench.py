"""The text bench on a small model: it times nothing before both sides chose the same tokens."""

from importlib import import_module

import pytest
import torch

import triptych
from triptych.errors import TriptychError
from triptych.learn.models.transformer import TransformerConfig

bench = import_module("triptych.bench.generate")  # the package's own `generate` is a function
SMALL = TransformerConfig(
    vocab_size=20,
    block_size=16,
    width=32,
    layers=1,
    heads=2,
    positions="learned",
    activation="gelu_tanh",
    bias=True,
)


def test_equal_tokens_are_timed_and_others_are_an_error(tmp_path):
    torch.manual_seed(0)
    reference = bench.gpt2(SMALL)
    with triptych.load(bench.same_weights(reference, SMALL, tmp_path / "gpt"), threads=1) as engine:
        many = bench.compare(reference, engine, streams=3, tokens=4, repeats=2)
        assert len(many.ours_s) == len(many.reference_s) == 2
        assert "3 streams" in many.claim
        with pytest.raises(TriptychError, match="different tokens"):
            bench.compare(bench.gpt2(SMALL), engine, streams=1, tokens=12, repeats=1)
    with triptych.load(tmp_path / "gpt", threads=1, cache_precision="int8") as engine:
        eighths = bench.compare(reference, engine, streams=3, tokens=4, repeats=1)
    assert eighths.details["cache_bytes"] * 4 == many.details["cache_bytes"]
    assert "cache int8" in eighths.claim
    assert "nats per token" in eighths.equal
