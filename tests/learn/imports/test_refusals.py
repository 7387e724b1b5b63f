"""What cannot be followed is refused by name, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import ones

from triptych.errors import ConfigError, DataError
from triptych.learn.imports import import_folder

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = f"{WEIGHTS}.index.json"
Spoil = Callable[[Path], object]


def field(**fields: Any) -> Spoil:
    """Set fields of the config."""

    def spoil(folder: Path) -> None:
        told = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(told | fields))

    return spoil


def tensors(alter: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Alter the tensors by name."""

    def spoil(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        alter(held)
        save_file(held, folder / WEIGHTS)

    return spoil


def tensor(name: str, value: torch.Tensor) -> Spoil:
    """Put in a tensor, or another in its place."""
    return tensors(lambda held: held.update({name: value}))


def twice(name: str, of: str) -> Spoil:
    """Put in a tensor that should be `of`, and is another."""
    return tensors(lambda held: held.update({name: held[of] + 1}))


def file(name: str, text: str) -> Spoil:
    """Write a file."""
    return lambda folder: (folder / name).write_text(text)


def missing(name: str) -> Spoil:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def renamed(name: str, other: str) -> Spoil:
    """Give a file another name."""
    return lambda folder: (folder / name).rename(folder / other)


def sharded(index: Any) -> Spoil:
    """Two files of the same weights in place of the one, and an index."""

    def spoil(folder: Path) -> None:
        (folder / "1.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
        (folder / WEIGHTS).rename(folder / "2.safetensors")
        (folder / INDEX).write_text(json.dumps(index))

    return spoil


def cut_short(name: str) -> Spoil:
    """Take the last bytes off a file."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


REFUSED = [
    (field(model_type="llama"), ConfigError, "model_type: got 'llama'; valid: 'gpt2'"),
    (field(architectures=["GPT2ForSequenceClassification"]), ConfigError, "architectures"),
    (field(activation_function="gelu_nwe"), ConfigError, "[Dd]id you mean `gelu_new`"),
    (field(add_cross_attention=True), ConfigError, "add_cross_attention: got True; valid: False"),
    (field(quantization_config={"bits": 4}), ConfigError, "quantization_config"),
    (field(rope_theta=1e4), ConfigError, "rope_theta: the field is unknown"),
    (field(n_heads=4), ConfigError, "[Dd]id you mean `n_head`"),
    (field(n_ctx=17), ConfigError, "n_ctx: got 17; valid: 16, as n_positions says"),
    (field(n_layer=0), ConfigError, "n_layer: got 0; valid: 1 or more"),
    (field(n_head=3), ConfigError, "n_embd: got 16; valid: a multiple of n_head = 3"),
    (field(n_embd="16"), ConfigError, "n_embd"),
    (field(layer_norm_epsilon=0), ConfigError, "layer_norm_epsilon"),
    (field(dtype="int8"), ConfigError, "dtype"),
    (field(eos_token_id="end"), ConfigError, "eos_token_id"),
    (tensors(lambda held: held.pop("transformer.ln_f.bias")), DataError, "lacks ln_f.bias"),
    (tensor("extra", ones(1)), DataError, "holds extra, which is not expected"),
    (
        tensor("transformer.wpe.weight", ones(17, 16)),
        DataError,
        r"wpe.weight: got shape \(17, 16\); valid: \(16, 16\)",
    ),
    (tensor("transformer.h.0.mlp.c_fc.weight", ones(64, 16)), DataError, r"valid: \(16, 64\)"),
    (tensor("transformer.ln_f.bias", ones(16, dtype=torch.int8)), DataError, "got int8"),
    (tensor("transformer.ln_f.bias", ones(16) * torch.nan), DataError, "NaN"),
    (tensor("transformer.h.0.attn.bias", ones(1, 1, 16, 16)), DataError, "mask"),
    (twice("lm_head.weight", of="transformer.wte.weight"), DataError, "tie_word_embeddings"),
    (twice("wte.weight", of="transformer.wte.weight"), DataError, "both with"),
    (missing(CONFIG), DataError, "config.json: is missing"),
    (missing(WEIGHTS), DataError, "model.safetensors: is missing"),
    (missing(TOKENIZER), DataError, "tokenizer.json: is missing.*AutoTokenizer"),
    (renamed(WEIGHTS, "pytorch_model.bin"), DataError, "pickle can run code.*save_pretrained"),
    (renamed(WEIGHTS, INDEX), ConfigError, "index.json: it cannot be read"),
    (sharded({}), DataError, "index.json: it names no files"),
    (sharded({"weight_map": {"a": 1}}), DataError, "index.json: it names no files"),
    (sharded({"weight_map": {"a": "../a.safetensors"}}), DataError, "it names '../a.safetensors'"),
    (sharded({"weight_map": {"a": "pytorch_model.bin"}}), DataError, "it names 'pytorch_model.bin'"),
    (sharded({"weight_map": {"a": "gone.safetensors"}}), DataError, "gone.safetensors: it cannot be read"),
    (
        sharded({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}),
        DataError,
        "as another file does",
    ),
    (file(CONFIG, "{"), ConfigError, "config.json: it cannot be read"),
    (file(CONFIG, "[]"), ConfigError, "got list; valid: a JSON object"),
    (cut_short(WEIGHTS), DataError, "model.safetensors: it cannot be read"),
    (file(TOKENIZER, "{}"), DataError, "tokenizer.json: it cannot"),
    (
        field(vocab_size=9),
        DataError,
        r"tokenizer.json: it has \d+ tokens; valid: the model.s 9, or fewer. The tokenizer is of another",
    ),
    (file("generation_config.json", "?"), ConfigError, "generation_config"),
]


@pytest.mark.parametrize(("spoil", "error", "said"), REFUSED)
def test_what_cannot_be_followed_is_refused_by_name_and_nothing_is_written(
    spoil: Spoil, error: type[Exception], said: str, tmp_path: Path, save: Any
) -> None:
    save(tmp_path / "gpt2")
    (tmp_path / "gpt2/generation_config.json").unlink(missing_ok=True)
    spoil(tmp_path / "gpt2")
    with pytest.raises(error, match=said):
        import_folder(tmp_path / "gpt2", tmp_path / "bundle")
    assert [entry.name for entry in tmp_path.iterdir()] == ["gpt2"]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        import_folder(tmp_path / "gpt2", tmp_path / "bundle")
