"""The Transformer's next-token graph: one step of text generation, with the past in a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from triptych.bundle.manifest import TensorSpec
from triptych.learn.maths.attention import rotate
from triptych.learn.models.base import Graph

if TYPE_CHECKING:
    from triptych.learn.models.transformer import Transformer, TransformerConfig
    from triptych.learn.nn import Block

TRIAL_TOKENS = 4
HEAD_MULTIPLE, ROTARY_HEAD_MULTIPLE = 8, 16  # head sizes that `GroupQueryAttention` takes


class NextToken(nn.Module):
    """Reads tokens into a cache and gives the logits of the next one.

    In an exported graph each layer's attention is one operator of onnxruntime, `GroupQueryAttention`, which
    writes into the cache in place; here it is the same formula in torch, which the graph is compared with.

    Rows may have pasts of different lengths. Either every row reads `tokens` from the beginning
    (`total_sequence_length` = their number), or each reads one token after its past.

    The operator takes heads of certain sizes only: others are filled up with zeros, which change no product.
    """

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens: Tensor, seqlens_k: Tensor, total_sequence_length: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits (B, V), then each layer's key and value with the new tokens in them.

        Args:
            tokens: (B, T) token ids.
            seqlens_k: the position of each row's last token, (B,), int32.
            total_sequence_length: positions in use, at most, int32.
            past: each layer's key and value, (B, kv_heads, block_size, cached_head_dim).
        """
        model = self.model
        positions = seqlens_k[:, None].long() + torch.arange(1 - tokens.shape[1], 1)
        x = model.embedding(tokens)
        if model.position_embedding is not None:
            x = x + model.position_embedding(positions)
        lengths = positions, seqlens_k, total_sequence_length
        presents: list[Tensor] = []
        for layer, block in enumerate(model.blocks):
            x, key, value = self.block(cast("Block", block), x, past[2 * layer : 2 * layer + 2], lengths)
            presents += [key, value]
        head = model.embedding.weight if model.head is None else model.head.weight
        return linear(model.norm(x[:, -1]), head), *presents

    def block(
        self, block: Block, x: Tensor, past: Sequence[Tensor], lengths: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block: its output and its cache."""
        packed = block.attention.qkv(block.attention_norm(x))
        attention = self.operator if torch.onnx.is_in_onnx_export() else self.formula
        mixed, key, value = attention(block, packed, past, lengths)
        x = x + block.attention.output(mixed)
        return x + block.mlp(block.mlp_norm(x)), key, value

    def operator(
        self, block: Block, packed: Tensor, past: Sequence[Tensor], lengths: tuple[Tensor, Tensor, Tensor]
    ) -> Sequence[Tensor]:
        """Attention as onnxruntime's operator."""
        attention, rotary, window = block.attention, self.model.rotary, self.model.config.window
        attributes: dict[str, Any] = {"num_heads": attention.heads, "kv_num_heads": attention.kv_heads}
        tables: list[Tensor] = []
        if (width := past[0].shape[-1]) != attention.head_dim:
            heads = torch.cat(list(self.split(block, packed, lengths[0])), dim=1).transpose(1, 2)
            packed = pad(heads, (0, width - attention.head_dim)).flatten(2)
            attributes["scale"] = attention.head_dim**-0.5
        elif rotary is not None:
            attributes["do_rotary"] = 1
            tables = [rotary.cos, rotary.sin]
        if window is not None:
            attributes["local_window_size"] = window
        batch, time, _ = packed.shape
        mixed, *cache = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            [packed, None, None, *past, *lengths[1:], *tables],
            attributes,
            dtypes=(torch.float32,) * 3,
            shapes=((batch, time, attention.heads * width), past[0].shape, past[1].shape),
            version=1,
        )
        if width != attention.head_dim:
            by_head = mixed.view(batch, time, attention.heads, width)
            mixed = by_head[..., : attention.head_dim].flatten(2)
        return mixed, *cache

    def formula(
        self, block: Block, packed: Tensor, past: Sequence[Tensor], lengths: tuple[Tensor, Tensor, Tensor]
    ) -> Sequence[Tensor]:
        """The same in torch."""
        attention, positions, slots = block.attention, lengths[0], torch.arange(past[0].shape[2])
        query, key, value = self.split(block, packed, positions)
        more = past[0].shape[-1] - attention.head_dim
        key, value = pad(key, (0, more)), pad(value, (0, more))
        is_used = (slots <= positions[:, -1:])[:, None, :, None]
        place = positions[:, None, :, None].expand_as(key)
        key, value = (
            old.scatter(2, place, new) * is_used for old, new in zip(past, (key, value), strict=True)
        )
        allowed = torch.stack([self.model.mask.allowed(row, slots) for row in positions])[:, None]
        keys, values = (attention.shared(part[..., : attention.head_dim]) for part in (key, value))
        mixed = scaled_dot_product_attention(query, keys, values, allowed).transpose(1, 2).flatten(2)
        return mixed, key, value

    def split(self, block: Block, packed: Tensor, positions: Tensor) -> Sequence[Tensor]:
        """Queries, keys and values, (B, N, T, D), the first two turned if positions are rotary."""
        attention, rotary = block.attention, self.model.rotary
        by_head = packed.view(*packed.shape[:2], -1, attention.head_dim).transpose(1, 2)
        parts = torch.split(by_head, [attention.heads, attention.kv_heads, attention.kv_heads], dim=1)
        if rotary is None:
            return parts
        cos, sin = rotary.cos[positions][:, None], rotary.sin[positions][:, None]
        return rotate(parts[0], cos, sin), rotate(parts[1], cos, sin), parts[2]

    def trials(self, rows: int, generator: torch.Generator) -> tuple[tuple[Tensor, ...], ...]:
        """One token after pasts of different lengths; then a prompt, whose past must not matter."""
        config = self.model.config
        size, prompt = config.block_size, min(TRIAL_TOKENS, config.block_size)
        shape = (rows, config.key_heads, size, cached_head_dim(config))
        past = [torch.randn(shape, generator=generator) for _ in range(2 * config.layers)]
        tokens = torch.randint(config.vocab_size, (rows, prompt), generator=generator)
        last = torch.randint(size, (rows,), generator=generator, dtype=torch.int32)
        read = torch.full((rows,), prompt - 1, dtype=torch.int32)
        step = (tokens[:, :1], last, torch.tensor(size, dtype=torch.int32), *past)
        return step, (tokens, read, torch.tensor(prompt, dtype=torch.int32), *past)


def cached_head_dim(config: TransformerConfig) -> int:
    """The size of a head in the cache: as `GroupQueryAttention` takes it, `head_dim` or the next above."""
    multiple = ROTARY_HEAD_MULTIPLE if config.positions == "rotary" else HEAD_MULTIPLE
    return -(-config.head_dim // multiple) * multiple


def next_token(model: Transformer, name: str = "next_token") -> Graph:
    """The cached next-token graph of a Transformer, called `name`."""
    config = model.config
    high = float(config.vocab_size - 1)
    shape = ("batch", config.key_heads, config.block_size, cached_head_dim(config))
    names = [f"{part}_{layer}" for layer in range(config.layers) for part in ("key", "value")]
    module = NextToken(model)
    return Graph(
        name,
        module,
        (
            TensorSpec(name="tokens", shape=("batch", "time"), dtype="int64", low=0.0, high=high),
            TensorSpec(
                name="seqlens_k", shape=("batch",), dtype="int32", low=0.0, high=float(config.block_size - 1)
            ),
            TensorSpec(
                name="total_sequence_length", shape=(), dtype="int32", low=1.0, high=float(config.block_size)
            ),
            *(TensorSpec(name=f"past_{name}", shape=shape) for name in names),
        ),
        (
            TensorSpec(name="logits", shape=("batch", config.vocab_size)),
            *(TensorSpec(name=f"present_{name}", shape=shape) for name in names),
        ),
        module.trials(2, torch.Generator().manual_seed(0))[1],
    )
