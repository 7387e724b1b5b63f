"""Claim: text comes faster than from `transformers`' `generate` with its cache.

In float32 it is the same text, token by token. With weights or a cache of fewer bits the next token's
distribution is within the bundle's gate of float32's, in nats per token.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import triptych
from triptych.bench.comparison import Comparison, by_turns
from triptych.errors import TriptychError
from triptych.infer import GenerationRequest
from triptych.learn import Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export
from triptych.learn.models.transformer import TransformerConfig

THREADS, STREAMS, TOKENS, REPEATS = 2, 16, 200, 3
WAYS = (("f32", "f32"), ("int8", "f32"), ("f32", "f16"), ("int8", "int8"))  # weights, cache
CONFIG = TransformerConfig(
    vocab_size=65,
    block_size=256,
    width=384,
    layers=6,
    heads=6,
    positions="learned",
    activation="gelu_tanh",
    bias=True,
)
NAMES = {
    "position_embedding": "wpe",
    "embedding": "wte",
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.0": "mlp.c_fc",
    "mlp.2": "mlp.c_proj",
    "norm": "ln_f",
}


def compare_generation(
    config: TransformerConfig = CONFIG, tokens: int = TOKENS, repeats: int = REPEATS
) -> list[Comparison]:
    """A GPT-2 of `config`'s size, its weights in both: one stream, then many at once against one."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    reference = gpt2(config)
    with tempfile.TemporaryDirectory() as folder:
        bundle = same_weights(reference, config, Path(folder) / "gpt")
        found = []
        for precision, cache in WAYS:
            with triptych.load(bundle, threads=THREADS, precision=precision, cache_precision=cache) as engine:
                found += [compare(reference, engine, streams, tokens, repeats) for streams in (1, STREAMS)]
        return found


def compare(
    reference: GPT2LMHeadModel, engine: triptych.Engine, streams: int, tokens: int, repeats: int
) -> Comparison:
    """First the same tokens, the likeliest ones, in float32, and otherwise streams that agree with each
    other; then seconds per token of one stream there and of `streams` here."""
    start = torch.zeros((1, 1), dtype=torch.long)
    whole = torch.ones_like(start)

    untyped: Any = reference  # the annotation of `generate` does not admit its own class

    def reference_tokens() -> list[int]:
        with torch.inference_mode():
            made = untyped.generate(
                start, attention_mask=whole, max_new_tokens=tokens, do_sample=False, use_cache=True
            )
        found: list[int] = made[0, 1:].tolist()
        return found

    def our_tokens() -> list[list[int]]:
        loop = engine.decode_loop(streams)
        request = GenerationRequest(prompt=(0,), max_tokens=tokens, temperature=0.0)
        made: dict[int, list[int]] = {loop.add(request): [] for _ in range(streams)}
        while len(loop):
            for event in loop.step():
                made[event.id].append(event.token_id)
        return list(made.values())

    rounded = [p for p in engine.text_sampler.precisions if p.graph == engine.token_graph]
    found = our_tokens()
    expected = found[0] if rounded else reference_tokens()
    if any(row != expected for row in found):
        raise TriptychError("the two sides chose different tokens", where="bench generate")
    quality = rounded[0].quality if rounded else None
    precision, cache = (rounded[0].precision, rounded[0].cache_precision) if rounded else ("f32", "f32")
    cache_bytes = engine.decode_loop(streams, prefix_bytes=0).cache_bytes
    reference_s, ours_s = by_turns(reference_tokens, our_tokens, repeats=repeats)
    return Comparison(
        claim=f"a token, {streams} stream{'s' * (streams > 1)} of {tokens}, {size(reference)} parameters, "
        f"weights {precision}, cache {cache}: {cache_bytes / 1e6:.1f} MB",
        reference="transformers generate, one stream with its cache",
        ours=f"onnxruntime, weights {precision}, cache {cache}",
        threads=THREADS,
        reference_s=[seconds / tokens for seconds in reference_s],
        ours_s=[seconds / (tokens * streams) for seconds in ours_s],
        equal="the same tokens"
        if quality is None
        else f"{quality.value:.2g} nats per token from float32, up to {quality.limit:g} allowed",
        details={"precision": precision, "cache_precision": cache, "cache_bytes": cache_bytes},
    )


def gpt2(config: TransformerConfig) -> GPT2LMHeadModel:
    """A GPT-2 with random weights, large enough that it has an opinion; it never ends a text by itself."""
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.block_size,
            n_embd=config.width,
            n_layer=config.layers,
            n_head=config.heads,
            bos_token_id=0,
            eos_token_id=None,
            initializer_range=0.1,
        )
    )
    model.train(False)
    return model


def same_weights(reference: GPT2LMHeadModel, config: TransformerConfig, destination: Path) -> Path:
    """A bundle of our model with the reference's weights."""
    model = Transformer(config)
    model.load_state_dict({name: theirs(reference, name) for name in model.state_dict()})
    letters = "".join(map(chr, range(ord("A"), ord("A") + config.vocab_size)))
    return export(model, destination, tokenizer=character_tokenizer(letters).to_str())


def theirs(reference: GPT2LMHeadModel, name: str) -> torch.Tensor:
    """The tensor of GPT-2 that is ours by `name`; its projections are stored inputs first."""
    owner, _, kind = name.rpartition(".")
    prefix, inner = "transformer.", owner
    if owner.startswith("blocks."):
        _, layer, inner = owner.split(".", 2)
        prefix += f"h.{layer}."
    tensor: torch.Tensor = reference.state_dict()[f"{prefix}{NAMES[inner]}.{kind}"]
    return tensor.T if tensor.ndim == 2 and "embedding" not in name else tensor


def size(model: torch.nn.Module) -> str:
    """Parameters in millions."""
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"
