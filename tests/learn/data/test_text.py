"""Tokenizers are lossless and survive their JSON; validation windows cover all of a text once."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from triptych.errors import ConfigError, DataError
from triptych.learn import data as datasets
from triptych.learn.data.split import Cursor, Sampler, WindowSplit
from triptych.learn.data.text import bpe_tokenizer, character_tokenizer, encode

LETTERS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1)


@given(LETTERS)
def test_character_tokenizer_round_trips_any_text_of_its_characters(text: str) -> None:
    tokenizer = Tokenizer.from_str(character_tokenizer(text).to_str())
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert encode(tokenizer, text).tolist() == ids


@given(LETTERS)
def test_bpe_tokenizer_round_trips_any_text_at_all(text: str) -> None:
    tokenizer = Tokenizer.from_str(bpe_tokenizer(["to be or not to be\n" * 3], 270).to_str())
    assert tokenizer.decode(encode(tokenizer, text).tolist()) == text


def test_bpe_shortens_what_it_has_seen() -> None:
    text = "the quality of mercy is not strained\n" * 50
    made = datasets.from_text(text, tokenizer="bpe", vocab_size=300, block_size=8)
    assert made.spec.vocab_size <= 300
    assert len(made.train.tokens) < len(text) / 2


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"vocab_size": 300}, "has no effect"),
        ({"tokenizer": "bpe", "vocab_size": 256}, "above 256"),
        ({"tokenizer": "words"}, "characters or bpe"),
        ({"block_size": 0}, "at least 1"),
    ],
)
def test_a_setting_that_does_nothing_or_is_none_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        datasets.from_text("to be or not to be\n" * 50, **settings)


@given(st.integers(2, 300), st.integers(1, 16))
def test_validation_predicts_every_token_but_the_first_exactly_once(length: int, block_size: int) -> None:
    split = WindowSplit(torch.arange(length), block_size)
    targets = [batch.x[:, 1:].flatten() for batch, _ in split.whole(3)]
    assert torch.cat(targets).tolist() == list(range(1, length))
    assert sum(weight for _, weight in split.whole(3)) == length - 1


@given(st.integers(20, 300), st.integers(1, 8), st.integers(0, 50))
def test_training_windows_are_whole_and_do_not_overlap(length: int, block_size: int, epoch: int) -> None:
    split = WindowSplit(torch.arange(length), block_size)
    x = split.take(split.order(7, epoch)).x
    assert x.shape == (len(split), block_size + 1)
    assert bool((x.diff() == 1).all())
    assert len(x[:, :-1].unique()) == x[:, :-1].numel()


def test_passes_start_at_different_offsets() -> None:
    split = WindowSplit(torch.arange(100), 10)
    assert len({int(split.order(0, epoch).min()) for epoch in range(20)}) > 3


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 60))
def test_a_walk_goes_on_from_its_cursor_as_if_never_interrupted(
    size: int, batch_size: int, taken: int
) -> None:
    split = datasets.from_arrays(torch.linspace(0, 1, size + 2)[:, None]).train
    walk = Sampler(split, batch_size, Cursor(3))
    for _ in range(taken):
        walk.next()
    again = Sampler(split, batch_size, walk.cursor)
    for _ in range(5):
        assert torch.equal(walk.next().x, again.next().x)


def test_one_pass_visits_no_example_twice() -> None:
    split = datasets.from_arrays(torch.linspace(0, 1, 40)[:, None]).train
    walk = Sampler(split, 8, Cursor(0))
    seen = torch.cat([walk.next().x for _ in range(walk.per_epoch)]).flatten()
    assert len(seen.unique()) == len(seen) == 32


@pytest.mark.parametrize(("text", "block_size"), [("", 8), ("abc", 8), ("a" * 30, 64)])
def test_too_little_text_is_refused(text: str, block_size: int) -> None:
    with pytest.raises(DataError, match="too few"):
        datasets.from_text(text, block_size=block_size)


def test_a_text_that_says_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="one character over and over"):
        datasets.from_text("a" * 2_000, block_size=8)


def test_a_text_or_a_path_but_not_both(tmp_path) -> None:
    with pytest.raises(ConfigError, match="one of the two"):
        datasets.from_text()
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="UTF-8"):
        datasets.from_text(path=str(tmp_path / "latin.txt"))


def test_each_text_gives_its_own_validation_piece() -> None:
    made = datasets.from_text(["a" * 1000, "b" * 1000], block_size=8)
    assert set(made.validation.tokens.tolist()) == {0, 1}


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbf" + b"to be or not to be " * 40)
    assert "\ufeff" not in datasets.from_text(path=str(tmp_path / "x.txt"), block_size=8).tokenizer


def test_a_text_in_another_encoding_says_how_to_convert_it(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("to be " * 100, "utf-16")
    with pytest.raises(DataError, match="Convert it, for example with `iconv"):
        datasets.from_text(path=str(tmp_path / "x.txt"))
