"""Attention as a module: masks that hold, shared heads, a cache that changes nothing."""

import pytest
import torch
from torch import Tensor, nn

from triptych.learn.nn import Block, KeyValueCache, Mask, Rotary, SelfAttention

F64 = torch.float64
SIZE, WIDTH, HEADS = 7, 16, 4
MASKS = {
    "causal": Mask.causal(),
    "window": Mask.window(3),
    "prefix": Mask.prefix(3),
    "full": Mask.full(),
    "nothing": Mask(reach=0),
}
masks = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def attention(kv_heads: int = HEADS, **settings: bool) -> SelfAttention:
    torch.manual_seed(0)
    return SelfAttention(WIDTH, HEADS, kv_heads, **settings).double()


@masks
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_no_gradient_leaks_through_a_mask(mask: Mask, kv_heads: int) -> None:
    module, rotary = attention(kv_heads), Rotary(SIZE, WIDTH // HEADS).double()
    x = torch.randn(1, SIZE, WIDTH, dtype=F64, requires_grad=True)
    out = module(x, mask, rotary)
    positions = torch.arange(SIZE)
    seen = torch.stack(
        [torch.autograd.grad(out[0, t].sum(), x, retain_graph=True)[0][0].ne(0).any(-1) for t in positions]
    )
    expected = mask.allowed(positions, positions)
    looks = expected.any(1)  # a position that looks nowhere does not even depend on its own query
    assert seen[looks].equal(expected[looks] | torch.eye(SIZE, dtype=torch.bool)[looks])
    assert not seen[~looks].any()


def test_a_fully_masked_row_gives_zeros_and_no_nan() -> None:
    module = attention()
    x = torch.randn(2, SIZE, WIDTH, dtype=F64, requires_grad=True)
    out = module(x, Mask.causal(), key_lengths=torch.tensor([0, SIZE]))
    assert not out[0].any()
    out.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert not x.grad[0].any()


def test_padding_changes_nothing_for_the_real_positions() -> None:
    module, x = attention(), torch.randn(2, SIZE, WIDTH, dtype=F64)
    padded = module(x, Mask.full(), key_lengths=torch.tensor([4, SIZE]))
    torch.testing.assert_close(padded[0, :4], module(x[:1, :4], Mask.full())[0])
    torch.testing.assert_close(padded[1], module(x, Mask.full())[1])


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_grouped_queries_are_heads_with_repeated_keys_and_values(kv_heads: int) -> None:
    grouped, whole = attention(kv_heads), attention()
    size, each = WIDTH // HEADS, HEADS // kv_heads
    query, key, value = grouped.qkv.weight.split((WIDTH, kv_heads * size, kv_heads * size))
    repeated = [
        part.view(kv_heads, size, WIDTH).repeat_interleave(each, 0).flatten(0, 1) for part in (key, value)
    ]
    whole.qkv.weight.data = torch.cat((query, *repeated))
    whole.output.load_state_dict(grouped.output.state_dict())
    x = torch.randn(2, SIZE, WIDTH, dtype=F64)
    torch.testing.assert_close(grouped(x, Mask.causal()), whole(x, Mask.causal()))


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_torchs_multi_head_attention_on_copied_weights(bias: bool) -> None:
    module = attention(bias=bias)
    reference = nn.MultiheadAttention(WIDTH, HEADS, bias=bias, batch_first=True).double()
    reference.in_proj_weight.data, reference.out_proj.weight.data = module.qkv.weight, module.output.weight
    if bias:
        reference.in_proj_bias.data, reference.out_proj.bias.data = module.qkv.bias, module.output.bias
    x = torch.randn(2, SIZE, WIDTH, dtype=F64)
    hidden = torch.ones(SIZE, SIZE).tril().logical_not()
    expected, _ = reference(x, x, x, attn_mask=hidden, need_weights=False)
    torch.testing.assert_close(module(x, Mask.causal()), expected)


def layers(kv_heads: int, activation: str = "gelu") -> nn.ModuleList:
    torch.manual_seed(0)
    block = (WIDTH, HEADS, kv_heads)
    return nn.ModuleList(
        Block(*block, inner_width=32, activation=activation, bias=True, norm_epsilon=1e-5, dropout=0.0)
        for _ in range(2)
    ).double()


def through(
    blocks: nn.ModuleList, x: Tensor, mask: Mask, rotary: Rotary, cache: KeyValueCache | None = None
) -> Tensor:
    for layer, block in enumerate(blocks):
        x = block(x, mask, rotary, cache, layer)
    if cache is not None:
        cache.advance(x.shape[1])
    return x


@masks
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("pieces", [(3, 1, 1, 1, 1), (4, 3), (7,)])
def test_cached_equals_uncached_for_every_mask(mask: Mask, kv_heads: int, pieces: tuple[int, ...]) -> None:
    if mask.looks_ahead:
        pieces = (SIZE,)  # who looks ahead must have read everything first; a prefix lies in the first piece
    blocks, rotary = layers(kv_heads), Rotary(SIZE, WIDTH // HEADS).double()
    x = torch.randn(2, SIZE, WIDTH, dtype=F64)
    cache = KeyValueCache(2, 2, kv_heads, SIZE, WIDTH // HEADS, like=x)
    with torch.no_grad():
        cached = [through(blocks, piece, mask, rotary, cache) for piece in x.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(cached, 1), through(blocks, x, mask, rotary))
    assert cache.length == SIZE


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_a_block_whose_branches_are_silent_is_the_identity(activation: str) -> None:
    (block, _) = layers(4, activation)
    for branch in (block.attention.output, block.mlp[-1]):
        nn.init.zeros_(branch.weight)
        nn.init.zeros_(branch.bias)
    x = torch.randn(2, SIZE, WIDTH, dtype=F64)
    assert block(x, Mask.causal()).equal(x)


def test_rotary_tables_are_saved_with_the_weights_half_a_head_wide() -> None:
    state = Rotary(10, 6).state_dict()
    assert {name: tuple(table.shape) for name, table in state.items()} == {"cos": (10, 3), "sin": (10, 3)}
