"""Heads of any size: the operator takes multiples of 8 or 16, the graph fills others up."""

from pathlib import Path

import numpy as np
import pytest
import torch

import triptych
from triptych.learn import Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

SHAPES = {
    "rotary, below 8, grouped, with a window": {"positions": "rotary", "heads": 4, "kv_heads": 2, "width": 24}
    | {"window": 5},
    "rotary, 8": {"positions": "rotary", "heads": 2, "width": 16},
    "learned, odd": {"positions": "learned", "heads": 3, "width": 15},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_with_heads_of_any_size_gives_the_same_text_as_torch(shape: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Transformer(Transformer.Config(vocab_size=11, block_size=9, layers=2, **SHAPES[shape]))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    folder = export(model, tmp_path / "text", tokenizer=character_tokenizer("to be or nt\n").to_str())
    with triptych.load(folder) as engine:
        np.testing.assert_array_equal(engine.sample(5, seed=3), model.sample(5, seed=3).numpy())
