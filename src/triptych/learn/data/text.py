"""From text to token ids: character-level or byte-pair tokenizers, both as `tokenizers` JSON, both
lossless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from triptych.errors import ConfigError, DataError

Coding = Literal["characters", "bpe"]
BYTES, BPE_TOKENS = 256, 1_024  # the least and the usual number of byte-pair tokens


def tokens_at_most(tokenizer: Coding, vocab_size: int | None) -> int:
    """The largest vocabulary a tokenizer may learn.

    Raises:
        ConfigError: no such tokenizer, or `vocab_size` would have no effect on it.
    """
    if tokenizer not in ("characters", "bpe"):
        raise ConfigError(f"got {tokenizer!r}", where="data.tokenizer", valid="characters or bpe")
    if vocab_size is not None and tokenizer == "characters":
        raise ConfigError(
            f"{vocab_size!r} has no effect: every character of the text is a token",
            where="data.vocab_size",
            remedy='leave it out, or set tokenizer = "bpe"',
        )
    if vocab_size is not None and vocab_size <= BYTES:
        raise ConfigError(
            f"got {vocab_size!r}",
            where="data.vocab_size",
            valid=f"above {BYTES}: each byte is a token, and byte pairs come on top",
        )
    return BPE_TOKENS if vocab_size is None else vocab_size


def character_tokenizer(text: str) -> Tokenizer:
    """One token per distinct character of `text`, in order of code point; other characters are refused.

    >>> t = character_tokenizer("to be\\n")
    >>> t.decode(t.encode("bet\\n").ids)
    'bet\\n'
    """
    vocabulary = {character: index for index, character in enumerate(sorted(set(text)))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def bpe_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Byte-level byte-pair encoding learned from `texts`: any text at all can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Token ids of `text`, int32. Characters are looked up all at once; the ids are the tokenizer's own."""
    if not isinstance(tokenizer.model, models.WordLevel):
        return torch.tensor(tokenizer.encode(text).ids, dtype=torch.int32)
    vocabulary = tokenizer.get_vocab()
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.zeros(max(map(ord, vocabulary)) + 1, np.int32)
    table[[ord(character) for character in vocabulary]] = list(vocabulary.values())
    return torch.from_numpy(table[points])


def cut(texts: Sequence[str], fractions: Sequence[float], *, where: str) -> list[list[str]]:
    """Each text cut into consecutive pieces: the rest first, then one piece per fraction."""
    if min(fractions) < 0 or sum(fractions) >= 1:
        raise DataError(
            f"got parts of {list(fractions)}", where=where, valid="fractions that sum to less than 1"
        )
    pieces: list[list[str]] = [[] for _ in range(len(fractions) + 1)]
    for text in texts:
        ends = np.cumsum([1 - sum(fractions), *fractions]) * len(text)
        starts = [0, *(round(end) for end in ends)]
        for piece, start, end in zip(pieces, starts[:-1], starts[1:], strict=True):
            piece.append(text[start:end])
    return pieces
