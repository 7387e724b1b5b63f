"""What a language model pays for text, and the units it is told in."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


def next_token_nll(logits: Float[Tensor, "*B T V"], tokens: Int[Tensor, "*B T"]) -> Float[Tensor, "*B T"]:
    r"""Negative log-likelihood of each token, in nats.

    $$ -\log \mathrm{softmax}(a_t)_{x_{t+1}} \tag{lm.nll} $$

    Args:
        logits: the prediction made before each token is seen.
        tokens: the tokens that came.

    Returns: one value per token.
    Source: Bengio et al. 2003, "A neural probabilistic language model", section 2; sign flipped.
    """
    nll = cross_entropy(logits.flatten(0, -2), tokens.flatten(), reduction="none")  # (lm.nll)
    return nll.view(tokens.shape)


def perplexity(nll_nats_per_token: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    r"""Perplexity: how many equally likely tokens would be as surprising.

    $$ \exp(\mathrm{nll}) \tag{lm.perplexity} $$

    Args:
        nll_nats_per_token: the mean over the whole text; take the mean before, not after.

    Source: Jelinek et al. 1977, "Perplexity, a measure of the difficulty of speech recognition tasks".
    """
    return torch.exp(nll_nats_per_token)  # (lm.perplexity)


def bits_per_byte(nll_nats: Float[Tensor, "*B"], size_bytes: int) -> Float[Tensor, "*B"]:
    r"""Bits spent on each byte of the text: comparable between tokenizers.

    $$ \mathrm{nll} / (\text{bytes} \cdot \log 2) \tag{lm.bits_per_byte} $$

    Args:
        nll_nats: the sum over the text.
        size_bytes: the size of the same text in UTF-8.

    Source: Gao et al. 2020, arXiv:2101.00027, section 3.1; as published.
    """
    return nll_nats / (size_bytes * math.log(2))  # (lm.bits_per_byte)
