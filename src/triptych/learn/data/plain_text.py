"""Text of one's own as a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triptych.errors import ConfigError, DataError
from triptych.learn.data.dataset import Dataset, DataSpec
from triptych.learn.data.split import WindowSplit
from triptych.learn.data.text import Coding, bpe_tokenizer, character_tokenizer, cut, encode, tokens_at_most


def from_text(
    text: str | Sequence[str] | None = None,
    *,
    path: str | None = None,
    tokenizer: Coding = "characters",
    vocab_size: int | None = None,
    block_size: int = 64,
    validation: float = 0.05,
    test: float = 0.05,
) -> Dataset:
    """One text or several, or the UTF-8 file at `path`; each is cut into training, validation and test
    pieces. `vocab_size` is for `bpe`; without it up to 1,024 tokens.
    """
    texts = _texts(text, path)
    largest = tokens_at_most(tokenizer, vocab_size)
    if block_size < 1:
        raise ConfigError(f"got {block_size!r}", where="data.block_size", valid="at least 1")
    pieces = cut(texts, (validation, test), where=path or "text")
    if not any(texts):
        raise DataError("no characters are too few", where=path or "text", remedy="give a text")
    coder = (
        character_tokenizer("".join(texts))
        if tokenizer == "characters"
        else bpe_tokenizer(pieces[0], largest)
    )
    train, held_out, last = (WindowSplit(encode(coder, "".join(piece)), block_size) for piece in pieces)
    if len(train) < 1 or len(held_out.tokens) < 2 or len(last.tokens) < 2:
        raise DataError(
            f"{sum(map(len, texts))} characters are too few",
            where=path or "text",
            remedy=f"give more text, or a block_size below {block_size}",
        )
    if coder.get_vocab_size() < 2:
        raise DataError(
            "the text is one character over and over",
            where=path or "text",
            remedy="give a text to learn from",
        )
    spec = DataSpec(
        kind="text",
        sample_shape=(block_size,),
        source=f"the text of {path}" if path else "text in memory",
        digest=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        vocab_size=coder.get_vocab_size(),
        block_size=block_size,
    )
    section: dict[str, Any] = {
        "name": "text",
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "block_size": block_size,
        "validation": validation,
        "test": test,
    }
    if path:
        section["path"] = path
    return Dataset("text", spec, train, held_out, last, tokenizer=coder.to_str(), section=section)


def _texts(text: str | Sequence[str] | None, path: str | None) -> list[str]:
    if (text is None) == (path is None):
        raise ConfigError("give a text or a path, one of the two", where="from_text")
    if path is not None:
        try:
            text = Path(path).read_text("utf-8-sig")  # a byte order mark is no part of the text
        except UnicodeDecodeError as error:
            remedy = f"convert it, for example with `iconv -t UTF-8 {path}`"
            raise DataError(
                f"cannot be read: {error}", where=path, valid="a UTF-8 text file", remedy=remedy
            ) from error
        except OSError as error:
            raise DataError(f"cannot be read: {error}", where=path, valid="a UTF-8 text file") from error
    return [text] if isinstance(text, str) else list(text or ())
