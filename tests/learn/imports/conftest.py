"""Folders as `transformers` writes them, of GPT-2s that were never trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from triptych.learn.data.text import bpe_tokenizer

TEXTS = ["to be or not to be, that is the question", "là où été, 日本語, 🙂"] * 9
TOKENIZER = bpe_tokenizer(TEXTS, 290)
VOCABULARY = TOKENIZER.get_vocab_size()
SMALL = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
SMALL |= {"bos_token_id": 0, "eos_token_id": 1}

Save = Callable[..., GPT2LMHeadModel]


def save_gpt2(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> GPT2LMHeadModel:
    """Save a GPT-2 and its tokenizer; returns the model."""
    torch.manual_seed(0)
    # Large weights, so that attention is far from uniform and the likeliest token is clear.
    config = GPT2Config(**{**SMALL, "initializer_range": 0.3, **settings})
    model = GPT2LMHeadModel(config).eval().to(dtype)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".ln_" in name:
            torch.nn.init.normal_(parameter, mean=float(not name.endswith("bias")), std=0.2)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=TOKENIZER).save_pretrained(folder)
    return model


@pytest.fixture
def save() -> Save:
    return save_gpt2
