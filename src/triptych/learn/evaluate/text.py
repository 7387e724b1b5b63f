"""How many bytes of text each token stands for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from tokenizers import Tokenizer, decoders
from torch import Tensor

from triptych.learn.models.base import Batch


def token_sizes(tokenizer: str) -> Tensor:
    """Bytes of UTF-8 per token id, (V,), of a tokenizer given as its JSON.

    A byte-level tokenizer writes each byte as one character, so its tokens are measured in characters: a
    token may be half a letter.
    """
    reader = Tokenizer.from_str(tokenizer)
    by_byte = isinstance(reader.decoder, decoders.ByteLevel)
    tokens = [reader.id_to_token(index) or "" for index in range(reader.get_vocab_size())]
    return torch.tensor([len(token) if by_byte else len(token.encode()) for token in tokens])


def measured(batches: Iterable[Batch], tokenizer: str) -> Iterator[Batch]:
    """The same batches, each with the bytes of the text that its targets stand for."""
    sizes = token_sizes(tokenizer)
    for batch in batches:
        yield replace(batch, size_bytes=int(sizes[batch.x[:, 1:]].sum()))
