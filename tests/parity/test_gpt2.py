"""A Transformer with GPT-2's settings is the GPT-2 of `transformers`, weights copied both ways."""

import math

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from triptych.learn.models import Transformer

VOCABULARY, BLOCK, WIDTH, LAYERS, HEADS = 61, 24, 32, 3, 4
NAMES = {
    "embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "norm": "transformer.ln_f",
    **{
        f"blocks.{layer}.{ours}": f"transformer.h.{layer}.{theirs}"
        for layer in range(LAYERS)
        for ours, theirs in {
            "attention_norm": "ln_1",
            "attention.qkv": "attn.c_attn",
            "attention.output": "attn.c_proj",
            "mlp_norm": "ln_2",
            "mlp.0": "mlp.c_fc",
            "mlp.2": "mlp.c_proj",
        }.items()
    },
}


def ours() -> Transformer:
    config = Transformer.Config(
        vocab_size=VOCABULARY,
        block_size=BLOCK,
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        positions="learned",
        activation="gelu_tanh",
        bias=True,
    )
    return Transformer(config).eval()


def theirs() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=BLOCK,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,  # large enough that attention is far from uniform
    )
    return GPT2LMHeadModel(config).eval()


def turned(name: str, weight: Tensor) -> Tensor:
    """GPT-2's projections are stored inputs first."""
    is_projection = weight.ndim == 2 and "embedding" not in name
    return weight.T if is_projection else weight


def pairs(model: Transformer) -> dict[str, str]:
    """Our parameter names and theirs."""
    return {
        name: f"{NAMES[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}"
        for name, _ in model.named_parameters()
    }


def assert_same_logits(mine: Transformer, reference: GPT2LMHeadModel, dtype: torch.dtype) -> None:
    tokens = torch.randint(VOCABULARY, (3, BLOCK))
    with torch.no_grad():
        expected, logits = reference(tokens).logits, mine(tokens)
    # Each of a layer's four products rounds sums of `WIDTH` terms, of values as large as the logits.
    tolerance = torch.finfo(dtype).eps * math.sqrt(WIDTH) * 4 * LAYERS * expected.abs().max().item()
    assert expected.std() > 0.5, "the reference must say something"
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gpt2s_weights_in_our_model_give_gpt2s_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mine, reference = ours().to(dtype), theirs().to(dtype)
    source = dict(reference.named_parameters())
    for name, parameter in mine.named_parameters():
        parameter.data = turned(name, source.pop(pairs(mine)[name]).data).clone()
    assert not source, "every weight of GPT-2 has a place"
    assert_same_logits(mine, reference, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_our_weights_in_gpt2_give_our_logits(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mine, reference = ours().to(dtype), theirs().to(dtype)
    for parameter in mine.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    target = dict(reference.named_parameters())
    for name, parameter in mine.named_parameters():
        target[pairs(mine)[name]].data.copy_(turned(name, parameter.data))
    assert_same_logits(mine, reference, dtype)


def test_the_initialisation_has_gpt2s_scale() -> None:
    torch.manual_seed(0)
    weights = dict(ours().named_parameters())
    for name in ("embedding.weight", "blocks.0.attention.qkv.weight", "blocks.0.mlp.0.weight"):
        assert weights[name].std().item() == pytest.approx(0.02, rel=0.1)
    for name in ("blocks.0.attention.output.weight", "blocks.2.mlp.2.weight"):
        assert weights[name].std().item() == pytest.approx(0.02 / math.sqrt(2 * LAYERS), rel=0.1)
