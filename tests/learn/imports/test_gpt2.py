"""An imported GPT-2 says what `transformers` says: the same logits, the same words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

import triptych
from triptych.learn.imports import import_folder, settings

SHAPES: dict[str, dict[str, Any]] = {
    "one layer, heads of 8": {},
    "odd sizes, untied, exact gelu": {
        "n_layer": 2,
        "n_embd": 15,
        "n_head": 3,
        "n_inner": 37,
        "n_positions": 13,
    }
    | {"vocab_size": 307, "tie_word_embeddings": False, "activation_function": "gelu"},
    "three layers, one head, other scales": {"n_layer": 3, "n_embd": 20, "n_head": 1}
    | {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True, "layer_norm_epsilon": 1e-2},
    "heads of one number, silu, upcast": {"n_embd": 6, "n_head": 6, "activation_function": "silu"}
    | {"reorder_and_upcast_attn": True},
}


def rounding(model: GPT2LMHeadModel, logits: np.ndarray) -> float:
    """How far two orders of summation may be apart: eps sqrt(terms) times the largest value."""
    config = model.config
    terms = config.n_layer * (3 * config.n_embd + (config.n_inner or 4 * config.n_embd) + config.n_positions)
    return 8 * float(np.finfo(np.float32).eps) * math.sqrt(terms) * max(1.0, float(np.abs(logits).max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_greedy_tokens_are_those_of_transformers(shape: str, tmp_path: Path, save: Any) -> None:
    model = save(tmp_path / "gpt2", **SHAPES[shape])
    bundle = import_folder(tmp_path / "gpt2", tmp_path / "bundle").folder
    block = model.config.n_positions
    tokens = torch.randint(model.config.vocab_size, (3, block), generator=torch.Generator().manual_seed(1))
    with triptych.load(bundle) as engine, torch.no_grad():
        expected = model(tokens).logits.numpy()
        assert expected.std() > 0.3, "the reference must say something"
        found = engine.run("score", {"tokens": tokens.numpy()})["logits"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(model, expected))
        for prompt in ([3], [9, 250, 4]):
            made = model.generate(
                torch.tensor([prompt]), max_new_tokens=block - len(prompt), do_sample=False, pad_token_id=0
            )
            mine = engine.generate(prompt, max_tokens=block - len(prompt), temperature=0)
            assert [*prompt, *mine.token_ids] == made[0].tolist()


def test_the_token_that_ends_a_text_ends_it(tmp_path: Path, save: Any) -> None:
    model = save(tmp_path / "gpt2")
    free = model.generate(torch.tensor([[3]]), max_new_tokens=12, do_sample=False, eos_token_id=None)[
        0
    ].tolist()
    end = free[5]
    save(tmp_path / "gpt2", eos_token_id=[end, 2], bos_token_id=7)
    with triptych.load(import_folder(tmp_path / "gpt2", tmp_path / "bundle").folder) as engine:
        made = engine.generate([3], max_tokens=12, temperature=0)
        stop = free.index(end, 1)
        assert made.token_ids == free[1 : stop + 1]
        assert made.finish_reason == "stop"
        assert made.text == engine.tokenizer.decode(free[1:stop])
        assert engine.generate("", max_tokens=3).prompt_tokens == 1
        rows = engine.sample(3, seed=1)
        assert rows.shape == (3, 16)
        assert (rows[:, 0] == 7).all()


def test_streamed_pieces_are_whole_characters_and_together_the_text(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "gpt2", n_positions=64)
    with triptych.load(import_folder(tmp_path / "gpt2", tmp_path / "bundle").folder) as engine:
        for seed in range(6):
            stream = engine.generate("日本語 là", max_tokens=60, seed=seed, stream=True)
            pieces = list(stream)
            tokens = stream.generation.token_ids
            shown = tokens[:-1] if stream.generation.finish_reason == "stop" else tokens
            assert "".join(pieces) == engine.tokenizer.decode(shown)


def test_a_character_that_begins_in_the_prompt_is_whole_in_what_follows(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "gpt2")
    with triptych.load(import_folder(tmp_path / "gpt2", tmp_path / "bundle").folder) as engine:
        *prompt, last = engine.tokenizer.encode("là où本")
        for echo, text in ((False, "本"), (True, "là où本")):
            made = engine.generate(prompt, max_tokens=1, logit_bias={last: 100}, echo=echo)
            assert made.text == text
            pieces = engine.generate(prompt, max_tokens=1, logit_bias={last: 100}, echo=echo, stream=True)
            assert "".join(pieces) == text


def test_a_file_in_half_precision_without_prefix_and_with_masks_is_read(tmp_path: Path, save: Any) -> None:
    from safetensors.torch import load_file, save_file

    model = save(tmp_path / "gpt2", dtype=torch.bfloat16, eos_token_id=None)
    old = {
        name.removeprefix("transformer."): tensor
        for name, tensor in load_file(tmp_path / "gpt2/model.safetensors").items()
    }
    old["h.0.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    old["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(old, tmp_path / "gpt2/model.safetensors")
    imported = import_folder(tmp_path / "gpt2", tmp_path / "bundle")
    assert "weights in bfloat16 are computed with in float32" in imported.notes
    assert "no token ends a text: it goes on to max_tokens or a stop string" in imported.notes
    tokens = torch.arange(16)[None]
    with triptych.load(imported.folder) as engine, torch.no_grad():
        expected = model.float()(tokens).logits.numpy()
        found = engine.run("score", {"tokens": tokens.numpy()})["logits"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(model, expected))


def test_weights_in_several_files_are_read_as_one(tmp_path: Path, save: Any) -> None:
    model = save(tmp_path / "gpt2")
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    (tmp_path / "gpt2/tokenizer.json").rename(tmp_path / "shards/tokenizer.json")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    tokens = torch.arange(16)[None]
    with triptych.load(import_folder(tmp_path / "shards", tmp_path / "bundle").folder) as engine:
        found = engine.run("score", {"tokens": tokens.numpy()})["logits"]
    with torch.no_grad():
        expected = model(tokens).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(model, expected))


def test_a_tokenizer_that_truncates_or_draws_does_neither_in_the_bundle(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "gpt2")
    file = tmp_path / "gpt2/tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    wanted = tokenizer.encode("to be or not to be").ids
    tokenizer.enable_truncation(2)
    tokenizer.model.dropout = 0.9
    tokenizer.save(str(file))
    imported = import_folder(tmp_path / "gpt2", tmp_path / "bundle")
    assert any("has dropout" in note for note in imported.notes)
    with triptych.load(imported.folder) as engine:
        assert engine.tokenizer.encode("to be or not to be") == wanted


def test_the_fields_of_a_published_config_are_known(tmp_path: Path) -> None:
    """Those of distilgpt2, which an early transformers wrote."""
    document = {
        "_num_labels": 1,
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "embd_pdrop": 0.1,
        "eos_token_id": 50256,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "label2id": {"LABEL_0": 0},
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": 1024,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 6,
        "n_positions": 1024,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 50257,
    }
    assert settings.parse(document, tmp_path / "config.json") == settings.GPT2Settings(
        model_type="gpt2", architectures=["GPT2LMHeadModel"], n_layer=6
    )
