import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Described
from tokenizers import decoders, models

from triptych.errors import BundleError, BundleRefused, InputError
from triptych.infer.choosing import choose, log_probabilities
from triptych.infer.request import GenerationRequest
from triptych.infer.text import GrowingText, Tokenizer
from triptych.learn.data.text import bpe_tokenizer

BYTES = Tokenizer(bpe_tokenizer(["to be or not to be"], 270).to_str(), 270)


def pieces(tokens, stop, before=()):
    text = GrowingText(BYTES, stop, before)
    for token in tokens:
        yield text.push(token)
        if text.is_stopped:
            return
    yield text.finish()


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=3), max_size=3))
def test_a_growing_text_gives_whole_characters_up_to_the_first_stop_string(text, stop):
    given_out = list(pieces(BYTES.encode(text), stop))
    found = [at for at in map(text.find, stop) if at >= 0]
    assert "".join(given_out) == text[: min(found, default=len(text))]
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in given_out)


@given(st.lists(st.integers(0, 269), max_size=20))
def test_any_tokens_give_what_decoding_them_at_once_gives(tokens):
    assert "".join(pieces(tokens, ())) == BYTES.decode(tokens)


@given(st.lists(st.sampled_from([BYTES.encode("日")[0], *range(270)]), max_size=30), st.data())
def test_a_prompt_and_what_follows_it_are_one_text(tokens, data):
    """Also where the prompt ends within a character, which is whole in what follows."""
    cut = data.draw(st.integers(0, len(tokens)))
    prompt = tokens[:cut]
    follows = "".join(pieces(tokens[cut:], (), prompt))
    text = BYTES.decode(tokens)
    assert text.endswith(follows)
    given_before = text[: len(text) - len(follows)]
    assert BYTES.decode(prompt).startswith(given_before)
    assert set(BYTES.decode(prompt)[len(given_before) :]) <= {"\ufffd"}


def test_a_word_after_a_prompt_keeps_its_space():
    """SentencePiece's way: a space stands in front of each word, and is shown but for the first."""
    model = models.BPE({"▁": 0, "▁to": 1, "▁be": 2, "t": 3, "o": 4, "b": 5, "e": 6, "to": 7, "be": 8}, [])
    words = Described(model)
    words.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(words.to_str(), 9)
    assert GrowingText(tokenizer, ()).push(2) == "be"
    assert GrowingText(tokenizer, (), [1]).push(2) == " be"
    assert GrowingText(tokenizer, [" be"], [1, 2]).push(2) == ""


def test_a_text_of_no_characters_takes_a_token_as_long_at_its_end_as_at_its_beginning(monkeypatch):
    text, longest, decode = GrowingText(BYTES, ()), 0, BYTES.decode

    def watched(ids):
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    monkeypatch.setattr(BYTES, "decode", watched)
    continuation = BYTES.encode("日")[-1]
    given_out = "".join(text.push(continuation) for _ in range(100)) + text.finish()
    assert given_out == "\ufffd" * 100
    assert longest < 20


@given(st.text())
def test_bytes_can_express_any_text(text):
    assert BYTES.decode(BYTES.encode(text)) == text


logits = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12).map(
    lambda x: np.array(x, np.float32)
)


@given(logits, st.integers(0, 5), st.floats(0.05, 1), st.floats(0, 1, exclude_max=True), st.floats(0.1, 5))
def test_only_kept_tokens_are_chosen(logits, top_k, top_p, uniform, temperature):
    request = GenerationRequest(prompt="", top_k=top_k, top_p=top_p, temperature=temperature)
    token = choose(logits, request, uniform)
    probabilities = np.exp((logits.astype(float) - logits.max()) / temperature)
    kept = np.argsort(-probabilities, kind="stable")[: top_k or None]
    assert token in kept
    before = probabilities[kept[: list(kept).index(token)]].sum() / probabilities[kept].sum()
    assert top_p == 1 or before <= top_p + 1e-9


def test_tokens_are_chosen_as_often_as_they_are_likely():
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    request = GenerationRequest(prompt="")
    counts = np.bincount([choose(logits, request, (step + 0.5) / 1000) for step in range(1000)])
    assert counts.tolist() == [500, 300, 200]


@given(logits)
def test_probabilities_of_all_tokens_sum_to_1(logits):
    total = np.exp(log_probabilities(logits)).sum()
    assert abs(total - 1) < 1e-9


def described(**changes):
    return json.dumps(json.loads(bpe_tokenizer(["to be"], 270).to_str()) | changes)


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}


@pytest.mark.parametrize(
    "changes",
    [
        {"padding": PADDING | {"strategy": {"Fixed": 2**33}}},
        {"model": json.loads(bpe_tokenizer(["to be"], 270).to_str())["model"] | {"dropout": 0.5}},
        {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}},
    ],
)
def test_a_tokenizer_that_truncates_or_pads_or_is_random_is_refused(changes):
    """Padding to 2**33 tokens ends the process; with dropout equal prompts would have other tokens."""
    with pytest.raises(BundleRefused, match=r"tokenizer\.json: it truncates, pads or has dropout"):
        Tokenizer(described(**changes), 270)


def test_a_panic_of_the_tokenizer_is_an_error_like_any_other():
    with pytest.raises(BundleRefused, match="panics"):
        Tokenizer(described(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), 270)
    pattern = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    with pytest.raises(InputError, match="panics"):
        Tokenizer(described(normalizer=pattern), 270).encode("a" * 40 + "b")
    strip = {"type": "Strip", "content": "a", "start": 2**40, "stop": 2**40}
    with pytest.raises(BundleError, match=r"tokenizer\.json: it cannot decode tokens"):
        Tokenizer(described(decoder=strip), 270).decode(BYTES.encode("a"))
