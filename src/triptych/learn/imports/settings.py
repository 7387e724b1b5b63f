"""The config.json of a GPT-2: which of its fields decide the function, and which cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from triptych.errors import ConfigError, nearest
from triptych.learn.nn.block import Activation

MODEL_TYPE = "gpt2"
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2Model")

ACTIVATIONS: dict[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "n_ctx": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "torch_dtype": "dtype",
}

ONE_VALUE: dict[str, tuple[Any, ...]] = {  # the only values with which the function is GPT-2's
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False,),
    "prefix": (None,),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "tie_encoder_decoder": (False,),
}

NO_EFFECT = {
    # Training only.
    *("attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range", "gradient_checkpointing"),
    # Heads that do not write text.
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    *("summary_first_dropout", "num_labels", "_num_labels", "id2label", "label2id", "problem_type"),
    "finetuning_task",
    # How the other program computes and what it returns: with float32 the numbers are the same.
    *("reorder_and_upcast_attn", "use_cache", "output_attentions", "output_hidden_states", "output_past"),
    *("return_dict", "return_dict_in_generate", "output_scores", "torchscript", "use_bfloat16"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "is_decoder"),
    # Where it came from.
    *("transformers_version", "_name_or_path", "name_or_path", "_commit_hash", "tokenizer_class"),
    # Settings of a request, which each request brings itself.
    *("bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty", "do_sample"),
    *("early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty"),
    *("forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length"),
    *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "pad_token_id"),
    *("remove_invalid_values", "repetition_penalty", "sep_token_id", "suppress_tokens", "temperature"),
    *("tf_legacy_loss", "top_k", "top_p", "typical_p", "task_specific_params"),
}


class GPT2Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that decide what a GPT-2 computes, with the defaults of `transformers.GPT2Config`."""

    model_type: str = ""
    architectures: list[str] | None = None
    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256

    @property
    def head_dim(self) -> int:
        """The size of one head."""
        return self.n_embd // self.n_head

    def query_scale(self, layer: int) -> float:
        """What queries are multiplied by, so that dividing scores by sqrt(head_dim) gives this model's."""
        scale = 1.0 if self.scale_attn_weights else self.head_dim**0.5
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


def parse(document: Mapping[str, Any], file: Path) -> GPT2Settings:
    """The settings in a config.json. Raises `ConfigError` for any field that cannot be followed."""
    check_kind(document, file)
    for name, value in document.items():
        if name in ONE_VALUE and value not in ONE_VALUE[name]:
            only = " or ".join("null" if valid is None else repr(valid) for valid in ONE_VALUE[name])
            raise refused(file, name, f"got {value!r}", only, "this model is not a plain GPT-2")
    named: dict[str, Any] = {}
    for name, value in document.items():
        field = ALIASES.get(name, name)
        if field in named and named[field] != value:
            raise refused(file, name, f"got {value!r}", f"{named[field]!r}, as {field} says")
        named[field] = value
    known = set(GPT2Settings.__struct_fields__)
    if unknown := sorted(named.keys() - known - NO_EFFECT - ONE_VALUE.keys()):
        remedy = nearest(unknown[0], known) or "remove it if the model does not depend on it"
        raise refused(file, unknown[0], "the field is unknown", "fields of a GPT-2", remedy)
    try:
        settings = msgspec.convert(
            {name: value for name, value in named.items() if name in known}, GPT2Settings
        )
    except msgspec.ValidationError as error:
        raise ConfigError(
            str(error), where=str(file), valid="the types of transformers.GPT2Config"
        ) from error
    check_values(settings, file)
    return settings


def check_kind(document: Mapping[str, Any], file: Path) -> None:
    """Refuse other architectures by their name."""
    if (kind := document.get("model_type")) != MODEL_TYPE:
        raise refused(
            file, "model_type", f"got {kind!r}", repr(MODEL_TYPE), "only GPT-2's architecture is known"
        )
    names = document.get("architectures") or []
    if not isinstance(names, list) or (names and not set(map(str, names)) & set(ARCHITECTURES)):
        raise refused(file, "architectures", f"got {names!r}", " or ".join(ARCHITECTURES))


def check_values(settings: GPT2Settings, file: Path) -> None:
    """Refuse sizes that are none, and an activation that is not known."""
    for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
        if (size := getattr(settings, name)) is not None and size < 1:
            raise refused(file, name, f"got {size}", "1 or more")
    if settings.n_embd % settings.n_head:
        raise refused(file, "n_embd", f"got {settings.n_embd}", f"a multiple of n_head = {settings.n_head}")
    if (name := settings.activation_function) not in ACTIVATIONS:
        raise refused(
            file, "activation_function", f"got {name!r}", ", ".join(ACTIVATIONS), nearest(name, ACTIVATIONS)
        )
    if not 0 < settings.layer_norm_epsilon < 1:
        raise refused(file, "layer_norm_epsilon", f"got {settings.layer_norm_epsilon}", "above 0, below 1")


def refused(file: Path, field: str, problem: str, valid: str, remedy: str = "") -> ConfigError:
    """The error about one field."""
    return ConfigError(problem, where=f"{file}: {field}", valid=valid, remedy=remedy)
