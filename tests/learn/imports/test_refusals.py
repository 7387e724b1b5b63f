"""What cannot be followed is refused by name, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from triptych.errors import ConfigError, DataError
from triptych.learn.imports import import_folder

FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "llama"}, "model_type: got 'llama'; valid: 'gpt2'"),
    "another head": ({"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
    "an unknown activation": ({"activation_function": "gelu_nwe"}, "[Dd]id you mean `gelu_new`"),
    "cross attention": ({"add_cross_attention": True}, "add_cross_attention: got True; valid: False"),
    "quantised weights": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "an unknown field": ({"rope_theta": 1e4}, "rope_theta: the field is unknown"),
    "a misspelt field": ({"n_heads": 4}, "[Dd]id you mean `n_head`"),
    "two values of one field": ({"n_ctx": 17}, "n_ctx: got 17; valid: 16, as n_positions says"),
    "a size of 0": ({"n_layer": 0}, "n_layer: got 0; valid: 1 or more"),
    "heads that do not divide": ({"n_head": 3}, "n_embd: got 16; valid: a multiple of n_head = 3"),
    "a size that is text": ({"n_embd": "16"}, "n_embd"),
    "an epsilon of 0": ({"layer_norm_epsilon": 0}, "layer_norm_epsilon"),
    "an unknown type": ({"dtype": "int8"}, "dtype"),
    "an end that is no token": ({"eos_token_id": "end"}, "eos_token_id"),
}

TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "a tensor is missing": (lambda t: t.pop("transformer.ln_f.bias"), "lacks ln_f.bias"),
    "a tensor is too many": (lambda t: t.update(extra=torch.ones(1)), "holds extra, which is not expected"),
    "another shape": (
        lambda t: t.update({"transformer.wpe.weight": torch.ones(17, 16)}),
        r"wpe.weight: got shape \(17, 16\); valid: \(16, 16\)",
    ),
    "a projection of torch's layout": (
        lambda t: t.update({"transformer.h.0.mlp.c_fc.weight": torch.ones(64, 16)}),
        r"valid: \(16, 64\)",
    ),
    "integers": (lambda t: t.update({"transformer.ln_f.bias": torch.ones(16, dtype=torch.int8)}), "got int8"),
    "a number that is none": (lambda t: t["transformer.ln_f.bias"].fill_(torch.nan), "NaN"),
    "another mask": (lambda t: t.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)}), "mask"),
    "a head that is not tied": (
        lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1}),
        "tie_word_embeddings",
    ),
    "two names of one tensor": (
        lambda t: t.update({"wte.weight": t["transformer.wte.weight"] + 1}),
        "both with",
    ),
}

FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: is missing.*AutoTokenizer"),
    "a pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "pickle can run code.*save_pretrained",
    ),
    "several files": (
        lambda f: (f / "model.safetensors").rename(f / "model.safetensors.index.json"),
        "in several files.*max_shard_size",
    ),
    "a config that is no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        "config.json: it cannot be read",
    ),
    "a config that is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        "got list; valid: a JSON object",
    ),
    "weights cut short": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
        "model.safetensors: it cannot be read",
    ),
    "a tokenizer of something else": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "tokenizer.json: it cannot",
    ),
    "a tokenizer that knows more": (
        lambda f: change(f / "config.json", vocab_size=9),
        r"tokenizer.json: it has \d+ tokens; valid: the model.s 9, or fewer. The tokenizer is of another",
    ),
    "a damaged generation config": (
        lambda f: (f / "generation_config.json").write_text("?"),
        "generation_config",
    ),
}


def change(file: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture
def gpt2(tmp_path: Path, save: Any) -> Path:
    save(tmp_path / "gpt2")
    (tmp_path / "gpt2/generation_config.json").unlink(missing_ok=True)
    return tmp_path / "gpt2"


def refuses(folder: Path, kind: type[Exception] | tuple[type[Exception], ...], said: str) -> None:
    with pytest.raises(kind, match=said):
        import_folder(folder, folder.parent / "bundle")
    assert [entry.name for entry in folder.parent.iterdir()] == ["gpt2"]


@pytest.mark.parametrize("what", FIELDS)
def test_a_field_that_cannot_be_followed_is_refused(what: str, gpt2: Path) -> None:
    fields, said = FIELDS[what]
    change(gpt2 / "config.json", **fields)
    refuses(gpt2, ConfigError, said)


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_are_not_this_models_are_refused(what: str, gpt2: Path) -> None:
    alter, said = TENSORS[what]
    tensors = load_file(gpt2 / "model.safetensors")
    alter(tensors)
    save_file(tensors, gpt2 / "model.safetensors")
    refuses(gpt2, DataError, said)


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_missing_or_damaged_are_refused(what: str, gpt2: Path) -> None:
    spoil, said = FILES[what]
    spoil(gpt2)
    refuses(gpt2, (ConfigError, DataError), said)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        import_folder(tmp_path / "gpt2", tmp_path / "bundle")
