"""Between text and tokens: encoding a prompt, and text that grows token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from triptych.bundle.manifest import TOKENIZER
from triptych.errors import BundleError, BundleRefused, InputError

DECODED, SHORT = 8192, 4  # growing texts decode few tokens at a time, the same ones again and again
CHARACTER_TOKENS, CONTEXT_TOKENS = 4, 8  # of bytes, at most; of a prompt, that what follows is decoded with
INCOMPLETE = "\ufffd"  # what a decoder shows for bytes that are not yet a character


class Tokenizer:
    """The tokenizer of a bundle, strict: what it cannot express is an error, never dropped.

    `start_token` stands for a prompt without tokens.
    """

    def __init__(
        self, described: str, vocab_size: int, where: str = TOKENIZER, *, start_token: int = 0
    ) -> None:
        from tokenizers import Tokenizer as Described

        try:
            with panics_as_errors():
                self._tokenizer: Any = Described.from_str(described)
        except Exception as error:
            raise BundleRefused(f"it cannot be read ({error})", where=where) from error
        if self._tokenizer.truncation or self._tokenizer.padding or is_random(self._tokenizer):
            valid = "a tokenizer that gives all tokens of a text, always the same, and no more"
            raise BundleRefused("it truncates, pads or has dropout", where=where, valid=valid)
        if (size := max(self._tokenizer.get_vocab().values(), default=-1) + 1) > vocab_size:
            valid = f"the model's {vocab_size}, or fewer"
            raise BundleRefused(f"it has {size} tokens", where=where, valid=valid)
        self.vocab_size, self.start_token, self._where = vocab_size, start_token, where
        self._decoded = lru_cache(DECODED)(self._decode)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; decoding them gives `text` again, else `InputError`.

        A tokenizer may put a space before the first word.
        """
        try:
            with panics_as_errors():
                ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:
            raise InputError(
                f"cannot be encoded ({error})", where="prompt", valid=self.describe(text)
            ) from error
        if self.decode(ids) not in (text, f" {text}"):
            raise InputError(
                "holds characters this model does not know", where="prompt", valid=self.describe(text)
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return self._decoded(tuple(ids)) if len(ids) <= SHORT else self._decode(ids)

    def _decode(self, ids: Sequence[int]) -> str:
        try:
            with panics_as_errors():
                text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        except Exception as error:
            raise BundleError(f"it cannot decode tokens ({error})", where=self._where) from error
        return text

    def describe(self, text: str) -> str:
        """Which characters of `text` are unknown, for an error message."""
        unknown = sorted({character for character in text if not self.knows(character)})
        return (
            f"text without {' '.join(map(repr, unknown[:8]))}"
            if unknown
            else "text of the model's vocabulary"
        )

    def knows(self, character: str) -> bool:
        """Whether a character survives encoding and decoding."""
        try:
            with panics_as_errors():
                ids = self._tokenizer.encode(character, add_special_tokens=False).ids
            return self.decode(ids) == character
        except Exception:
            return False


def is_random(tokenizer: Any) -> bool:
    """Whether a tokenizer of the `tokenizers` package gives a text other tokens each time (BPE dropout)."""
    return bool(getattr(tokenizer.model, "dropout", None))


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """A panic of `tokenizers`, which is written in Rust, becomes an Exception: its own kind is none."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer panics: {error}") from error


class GrowingText:
    """Text that is given out in pieces.

    Whole characters only, and nothing that may be the start of a stop string. What comes after `before`, the
    tokens of a prompt, is the text that follows theirs: it keeps a space that a tokenizer puts in front of
    words other than the first, and the first of its characters may begin in them.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop: tuple[str, ...] = ()
        self._ids: list[int] = []
        self._context = self._read = (
            0  # tokens from `_context` are decoded anew; those before `_read` are given out
        )
        self._held = ""
        self.is_stopped = False
        for token in before[-CONTEXT_TOKENS:]:
            self.push(token)
        self._stop = tuple(stop)

    def push(self, token: int) -> str:
        """Add a token; returns the text that is certain now."""
        self._ids.append(token)
        before, after = self._around()
        end = len(self._ids)
        if after.endswith(INCOMPLETE):
            end = self._certain(after)
            if end == self._read:
                return ""
            after = self._tokenizer.decode(self._ids[self._context : end])
        self._context, self._read = self._read, end
        return self._release(after[len(before) :])

    def go_on(self, stop: Sequence[str]) -> None:
        """From here on, end before one of these strings."""
        self._stop = tuple(stop)

    def finish(self) -> str:
        """The text that was still held back, when no token will follow."""
        before, after = self._around()
        self._read = len(self._ids)
        self._context = self._read
        piece = self._release(after[len(before) :])
        if not self.is_stopped:
            piece, self._held = piece + self._held, ""
        return piece

    def _around(self) -> tuple[str, str]:
        """The text from `_context` without and with the tokens that are not given out."""
        return self._tokenizer.decode(self._ids[self._context : self._read]), self._tokenizer.decode(
            self._ids[self._context :]
        )

    def _certain(self, text: str) -> int:
        """Before which token nothing more can change, though `text` ends in what may become a character: that
        has begun in one of the last few tokens, where the text can be cut in two.
        """
        end = len(self._ids)
        first, decode = end - CHARACTER_TOKENS, self._tokenizer.decode
        for at in range(first, end) if first > self._read else ():
            if decode(self._ids[self._context : at]) + decode(self._ids[at:]) == text:
                return at
        return self._read

    def _release(self, piece: str) -> str:
        """Add a piece to what is held, cut at a stop string, and hold back what may become one."""
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next(
        (size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0
    )
