"""The autoregressive Transformer: each token is predicted from those before it.

Source: Vaswani et al. 2017, arXiv:1706.03762; pre-norm and initialisation: Radford et al. 2019 (GPT-2);
rotary positions: Su et al. 2021, arXiv:2104.09864; grouped queries: Ainslie et al. 2023, arXiv:2305.13245.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from triptych.bundle import noise
from triptych.bundle.manifest import TensorSpec, TextSampler
from triptych.errors import InputError
from triptych.learn.maths.language import bits_per_byte, next_token_nll, perplexity
from triptych.learn.models.base import Batch, Config, GenerativeModel, Graph, Progress, Terms, Turn
from triptych.learn.models.transformer_graphs import cached_head_dim, next_token
from triptych.learn.nn import Block, KeyValueCache, Mask, Rotary
from triptych.learn.nn.block import Activation


class TransformerConfig(Config, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="transformer"):
    """Settings of a Transformer.

    `block_size` is the longest text it can see, in tokens. `kv_heads` is how many keys and values `heads`
    queries share (none given: one each). `window` is how many tokens a token sees, itself included (none
    given: all before). `inner_width` is how wide the MLPs are inside (none given: 4 width). `bias` puts
    biases on projections and norms, as GPT-2 has. `norm_epsilon` is added to a variance before its root is
    taken.
    A text without a prompt goes on from `start_token`; one that reaches a token of `end_tokens` is finished.
    """

    vocab_size: int = 128
    block_size: int = 64
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    width: int = 128
    positions: Literal["rotary", "learned"] = "rotary"
    window: int | None = None
    inner_width: int | None = None
    tied_embeddings: bool = True
    activation: Activation = "gelu"
    bias: bool = False
    norm_epsilon: float = 1e-5
    dropout: float = 0.0
    start_token: int = 0
    end_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for field in ("vocab_size", "block_size", "layers", "heads", "width"):
            self.require(field, getattr(self, field) > 0, "1 or more")
        self.require("width", self.width % self.heads == 0, f"a multiple of heads = {self.heads}")
        shared = self.kv_heads is None or (self.kv_heads > 0 and self.heads % self.kv_heads == 0)
        self.require("kv_heads", shared, f"a divisor of heads = {self.heads}")
        even = self.positions != "rotary" or self.head_dim % 2 == 0
        self.require(
            "width", even, "an even width / heads, for rotary positions", 'or use positions = "learned"'
        )
        self.require("inner_width", self.inner_width is None or self.inner_width > 0, "1 or more")
        self.require("norm_epsilon", 0 < self.norm_epsilon < 1, "above 0, below 1")
        is_token, tokens = range(self.vocab_size).__contains__, f"tokens from 0 to {self.vocab_size - 1}"
        self.require("start_token", is_token(self.start_token), tokens)
        self.require("end_tokens", all(map(is_token, self.end_tokens)), tokens)
        self.require("window", self.window is None or self.window > 0, "1 or more")
        self.require("dropout", 0 <= self.dropout < 1, "0 or more, below 1")

    @property
    def head_dim(self) -> int:
        """The size of one head."""
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        """`kv_heads`, or `heads` if none are given."""
        return self.kv_heads or self.heads


class Transformer(GenerativeModel):
    """A decoder-only Transformer over token ids, small enough for a CPU by default.

    Weights start as in GPT-2: N(0, 0.02), the projections into the residual stream divided by sqrt(2 layers),
    biases 0, norms 1. A fresh model pays log(vocab_size) nats per token.

    >>> model = Transformer(Transformer.Config(vocab_size=5, block_size=8, layers=1, width=8, heads=2))
    >>> model.sample(2, seed=7, condition=[1, 2]).shape
    torch.Size([2, 8])
    """

    family = "transformer"
    Config = TransformerConfig
    validation_metric = "nll_nats_per_token"
    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.mask = Mask.causal() if config.window is None else Mask.window(config.window)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.rotary = Rotary(config.block_size, config.head_dim) if config.positions == "rotary" else None
        learned = config.positions == "learned"
        self.position_embedding = nn.Embedding(config.block_size, config.width) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.heads,
                config.key_heads,
                inner_width=config.inner_width or 4 * config.width,
                activation=config.activation,
                bias=config.bias,
                norm_epsilon=config.norm_epsilon,
                dropout=config.dropout,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon, bias=config.bias)
        self.head = None if config.tied_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        self.apply(start)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.output.weight", "mlp.2.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * config.layers))

    def turns(self) -> tuple[Turn, ...]:
        """A game of one; Adam's betas are those of GPT-3 (arXiv:2005.14165, appendix B)."""
        return (Turn("next_token", tuple(self.parameters()), betas=(0.9, 0.95)),)

    def forward(self, tokens: Tensor, cache: KeyValueCache | None = None) -> Tensor:
        """Logits of each next token, (B, T, V), for tokens of shape (B, T) that follow what `cache` holds."""
        x = self.embedding(tokens)
        if self.position_embedding is not None:
            past = cache.length if cache else 0
            x = x + self.position_embedding.weight[past : past + tokens.shape[1]]
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, self.mask, self.rotary, cache, layer)
        if cache is not None:
            cache.advance(tokens.shape[1])
        return linear(self.norm(x), self.embedding.weight if self.head is None else self.head.weight)

    def loss(self, batch: Batch, turn: Turn, progress: Progress) -> Terms:
        """The next-token loss, in nats per token."""
        return self.validate(batch)

    def validate(self, batch: Batch) -> Terms:
        """The next-token loss, in nats per token."""
        nll = next_token_nll(self(batch.x[:, :-1]), batch.x[:, 1:]).mean()
        return Terms(nll, {"nll_nats_per_token": nll})

    def figures(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Nats per token and perplexity over all tokens; bits per byte if the batches tell their bytes."""
        total, tokens, size_bytes = torch.zeros((), dtype=torch.float64), 0, 0
        for batch in batches:
            nll = next_token_nll(self(batch.x[:, :-1]), batch.x[:, 1:])
            total += nll.double().sum()
            tokens += nll.numel()
            size_bytes += batch.size_bytes or 0
        mean = total / tokens
        figures = {"nll_nats_per_token": mean.item(), "perplexity": perplexity(mean).item(), "tokens": tokens}
        return figures | ({"bits_per_byte": bits_per_byte(total, size_bytes).item()} if size_bytes else {})

    def cache(self, batch: int) -> KeyValueCache:
        """An empty cache for `batch` texts of up to block_size tokens."""
        c = self.config
        return KeyValueCache(
            c.layers, batch, c.key_heads, c.block_size, c.head_dim, like=self.embedding.weight
        )

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, condition: Sequence[int] | object | None = None) -> Tensor:
        """`n` texts of block_size token ids, (n, block_size), each beginning with the same prompt.

        Args:
            condition: the prompt's token ids, 1 to block_size of them; `start_token` if none is given.
        """
        prompt = torch.tensor(self.prompt(condition)).repeat(n, 1)
        return self.continued(prompt, seed, self.config.block_size - prompt.shape[1])

    @torch.no_grad()
    def continued(self, tokens: Tensor, seed: int, steps: int, choices: int | None = None) -> Tensor:
        """Token ids (n, T) and `steps` more after them, (n, T + steps), in ancestral sampling.

        Args:
            choices: only token ids below this are drawn; all, unless given.
        """
        streams = [noise.stream(seed, index, noise.TOKEN) for index in range(len(tokens))]
        cache, fresh, training = self.cache(len(tokens)), tokens, self.training
        device = self.embedding.weight.device
        self.eval()
        for _ in range(steps):
            logits = self(fresh.to(device), cache)[:, -1, :choices].cpu()
            uniform = torch.tensor([stream.random() for stream in streams], dtype=torch.float64)[:, None]
            fresh = choose(logits, uniform)
            tokens = torch.cat((tokens, fresh), dim=1)
        self.train(training)
        return tokens

    def prompt(self, condition: object | None) -> list[int]:
        """The token ids of `condition`, checked."""
        ids = np.asarray([self.config.start_token] if condition is None else condition)
        size, vocabulary = self.config.block_size, self.config.vocab_size
        integers = ids.ndim == 1 and np.issubdtype(ids.dtype, np.integer) and 0 < len(ids) <= size
        if not integers or ids.min() < 0 or ids.max() >= vocabulary:
            valid = f"1 to {size} token ids from 0 to {vocabulary - 1}"
            raise InputError(f"got {condition!r}", where="condition", valid=valid)
        return [int(token) for token in ids]

    def graphs(self) -> tuple[Graph, ...]:
        """`score`: tokens to the logits of each next token; `next_token`: one at a time, with a cache."""
        tokens, sizes = self.sample_spec(), ("batch", "time")
        tokens = TensorSpec(name="tokens", shape=sizes, dtype="int64", low=tokens.low, high=tokens.high)
        logits = TensorSpec(name="logits", shape=(*sizes, self.config.vocab_size))
        example = torch.randint(self.config.vocab_size, (2, self.config.block_size))
        return Graph("score", self, (tokens,), (logits,), (example,)), next_token(self)

    def sampler(self) -> TextSampler:
        """Prefill a prompt, then draw token after token."""
        c = self.config
        return TextSampler(
            graph="next_token",
            score_graph="score",
            vocab_size=c.vocab_size,
            block_size=c.block_size,
            layers=c.layers,
            kv_heads=c.key_heads,
            head_dim=cached_head_dim(c),
            start_token=c.start_token,
            end_tokens=c.end_tokens,
            standard_graph="next_token_standard",
        )

    def sample_spec(self) -> TensorSpec:
        """A text of block_size token ids."""
        high = float(self.config.vocab_size - 1)
        return TensorSpec(name="tokens", shape=(self.config.block_size,), dtype="int64", low=0.0, high=high)


def start(module: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def choose(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `uniform`: (B, V) and (B, 1) to (B, 1)."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(
        max=logits.shape[-1] - 1
    )
