"""A GPT-2's settings and tensors as ours: other names, projections turned, scales in the queries.

GPT-2 stores projections inputs first. Its two scales of attention that differ from 1 / sqrt(head_dim) are put
into the queries' weights, so the function is the same and no engine has to know of them.

Source: Radford et al. 2019 (GPT-2); the names are those of `transformers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from triptych.errors import DataError
from triptych.learn.imports.settings import ACTIVATIONS, GPT2Settings
from triptych.learn.models.transformer import Transformer, TransformerConfig

PREFIX, HEAD = "transformer.", "lm_head.weight"
OUTER = {"embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
INNER = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.0": "mlp.c_fc",
    "mlp.2": "mlp.c_proj",
}
PROJECTIONS = ("attention.qkv.weight", "attention.output.weight", "mlp.0.weight", "mlp.2.weight")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHOWN = 3


def configured(settings: GPT2Settings, start_token: int, end_tokens: Iterable[int]) -> TransformerConfig:
    """The Transformer that computes what this GPT-2 computes."""
    return TransformerConfig(
        vocab_size=settings.vocab_size,
        block_size=settings.n_positions,
        layers=settings.n_layer,
        heads=settings.n_head,
        width=settings.n_embd,
        inner_width=settings.n_inner,
        positions="learned",
        tied_embeddings=settings.tie_word_embeddings,
        activation=ACTIVATIONS[settings.activation_function],
        bias=True,
        norm_epsilon=settings.layer_norm_epsilon,
        start_token=start_token,
        end_tokens=tuple(end_tokens),
    )


def fill(model: Transformer, tensors: Mapping[str, Tensor], settings: GPT2Settings, file: Path) -> None:
    """Copy a GPT-2's tensors into `model`.

    Raises: DataError for a tensor that is missing, not expected, of another shape or type, or not finite.
    """
    given = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    if len(given) < len(tensors):
        raise DataError(
            f"holds tensors both with and without {PREFIX!r}", where=str(file), valid="one of them"
        )
    for name in [name for name in given if name.endswith((".attn.bias", ".attn.masked_bias"))]:
        check_mask(name, given.pop(name), file)
    parameters = dict(model.named_parameters())
    wanted = {theirs(name): name for name in parameters}
    if model.head is None and HEAD in given and "wte.weight" in given:
        check_tied(given.pop(HEAD), given["wte.weight"], file)
    check_names(given.keys(), wanted.keys(), file)
    for name, ours in wanted.items():
        parameters[ours].data.copy_(turned(ours, given[name], parameters[ours], f"{file}: {name}"))
    for layer in range(settings.n_layer):
        for kind in ("weight", "bias"):
            queries = parameters[f"blocks.{layer}.attention.qkv.{kind}"].data[: settings.n_embd]
            queries *= settings.query_scale(layer)


def theirs(ours: str) -> str:
    """GPT-2's name, without a prefix, of a parameter of ours.

    >>> theirs("blocks.0.mlp.2.bias"), theirs("norm.weight"), theirs("head.weight")
    ('h.0.mlp.c_proj.bias', 'ln_f.weight', 'lm_head.weight')
    """
    module, _, kind = ours.rpartition(".")
    if module == "head":
        return HEAD
    if module in OUTER:
        return f"{OUTER[module]}.{kind}"
    _, layer, inner = module.split(".", 2)
    return f"h.{layer}.{INNER[inner]}.{kind}"


def turned(ours: str, tensor: Tensor, parameter: Tensor, where: str) -> Tensor:
    """A tensor as our parameter has it, checked."""
    is_projection = ours.endswith(PROJECTIONS)
    shape = tuple(parameter.shape[::-1] if is_projection else parameter.shape)
    if tuple(tensor.shape) != shape:
        remedy = "config.json and model.safetensors are not of one model"
        raise DataError(f"got shape {tuple(tensor.shape)}", where=where, valid=str(shape), remedy=remedy)
    if tensor.dtype not in FLOATS:
        valid = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        raise DataError(f"got {str(tensor.dtype).removeprefix('torch.')}", where=where, valid=valid)
    if not tensor.isfinite().all():
        raise DataError("holds NaN or infinity", where=where, valid="finite numbers")
    return tensor.T if is_projection else tensor


def check_names(given: Iterable[str], wanted: Iterable[str], file: Path) -> None:
    """Refuse tensors that are missing or too many, by name."""
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    remedy = "config.json and model.safetensors are not of one model"
    if missing:
        also = f" (and {', '.join(extra[:SHOWN])} is not expected)" if extra else ""
        raise DataError(f"lacks {shortened(missing)}{also}", where=str(file), remedy=remedy)
    if extra:
        raise DataError(f"holds {shortened(extra)}, which is not expected", where=str(file), remedy=remedy)


def shortened(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_mask(name: str, tensor: Tensor, file: Path) -> None:
    """Older files store the causal mask beside the weights; any other mask is another model."""
    is_causal = tensor.ndim == 4 and tensor.shape[:2] == (1, 1) and tensor.shape[2] == tensor.shape[3]
    if name.endswith(".attn.bias") and not (
        is_causal and bool((tensor.bool() == tensor.bool().tril()).all())
    ):
        raise DataError("is no causal mask", where=f"{file}: {name}", valid="ones on and below the diagonal")


def check_tied(head: Tensor, embedding: Tensor, file: Path) -> None:
    """Refuse a head that differs from the embeddings it is said to be."""
    if head.shape != embedding.shape or not bool((head == embedding).all()):
        problem = "differs from wte.weight, but config.json says tie_word_embeddings"
        raise DataError(problem, where=f"{file}: {HEAD}", remedy="set tie_word_embeddings to false, if it is")
