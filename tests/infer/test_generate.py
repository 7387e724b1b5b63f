import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import triptych
from triptych.errors import InputError
from triptych.infer import GenerationRequest

BLOCK = 16

requests = st.builds(
    GenerationRequest,
    prompt=st.text("ab äz.\n", max_size=3 * BLOCK),
    max_tokens=st.integers(1, 3 * BLOCK),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    stop=st.lists(st.text("ab é", min_size=1, max_size=2), max_size=2).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 3),
)


def alone(engine, request):
    made = engine.generate(
        request.prompt,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        stop=request.stop,
        seed=request.seed,
        index=request.index,
        logprobs=True,
    )
    return made.text, made.token_ids, made.logprobs, made.finish_reason


@settings(max_examples=30)
@given(st.lists(st.tuples(requests, st.integers(0, 12)), min_size=1, max_size=9), st.integers(1, 5))
def test_a_sequence_gets_alone_what_it_gets_in_a_crowd(text, arrivals, slots):
    loop = text.decode_loop(slots)
    found, step = {}, 0
    pending = sorted(arrivals, key=lambda arrival: arrival[1])
    asked = {}
    while pending or len(loop):
        while pending and pending[0][1] <= step:
            request = pending.pop(0)[0]
            asked[loop.add(request)] = request
        for event in loop.step():
            entry = found.setdefault(event.id, ["", [], [], None])
            entry[0] += event.text
            entry[1].append(event.token_id)
            entry[2].append(event.logprob)
            entry[3] = event.finish_reason
        step += 1
    assert {id: tuple(entry) for id, entry in found.items()} == {
        id: alone(text, r) for id, r in asked.items()
    }


def test_threads_do_not_change_a_text(text, text_bundle):
    with triptych.load(text_bundle, threads=1) as other:
        assert other.generate("ab", max_tokens=50).token_ids == text.generate("ab", max_tokens=50).token_ids


def test_a_cancelled_sequence_leaves_the_others_as_they_were(text):
    loop = text.decode_loop(2)
    ids = [loop.add(GenerationRequest(prompt="ab", max_tokens=20, index=index)) for index in range(4)]
    tokens = {id: [] for id in ids}
    for step in range(60):
        if step == 3:
            assert loop.cancel(ids[0])
            assert loop.cancel(ids[3])
            assert not loop.cancel(ids[3])
        for event in loop.step():
            tokens[event.id].append(event.token_id)
    assert len(loop) == 0
    assert [len(tokens[id]) for id in ids] == [3, 20, 20, 0]
    for index in (1, 2):
        assert tokens[ids[index]] == text.generate("ab", max_tokens=20, index=index).token_ids


@settings(max_examples=30)
@given(requests)
def test_streamed_pieces_together_are_the_text(text, request):
    pieces = text.generate(
        request.prompt, max_tokens=request.max_tokens, stop=request.stop, seed=request.seed, stream=True
    )
    whole = text.generate(request.prompt, max_tokens=request.max_tokens, stop=request.stop, seed=request.seed)
    assert "".join(pieces) == whole.text
    assert pieces.generation.finish_reason == whole.finish_reason
    assert not any(stop in whole.text for stop in request.stop)


def test_a_stop_string_ends_the_text_before_it(text):
    whole = text.generate("ab", max_tokens=40, seed=1)
    stop = whole.text[10:12]
    cut = text.generate("ab", max_tokens=40, seed=1, stop=stop)
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert whole.finish_reason == "length"


def test_temperature_0_takes_the_likeliest_token_whatever_the_seed(text):
    greedy = text.generate("ab", max_tokens=8, temperature=0, seed=1)
    assert greedy.token_ids == text.generate("ab", max_tokens=8, temperature=0, seed=2).token_ids
    tokens = text.tokenizer.encode("ab")
    for token in greedy.token_ids:
        scores = text.run("score", {"tokens": [tokens]})["logits"][0, -1]
        assert scores[token] >= scores.max() - 1e-5
        tokens.append(token)


def test_log_probabilities_are_the_models_own(text):
    made = text.generate("ab", max_tokens=10, temperature=0.5, top_k=3, logprobs=True)
    prompt = text.tokenizer.encode("ab")
    logits = text.run("score", {"tokens": [prompt + made.token_ids]})["logits"][0].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for place, token in enumerate(made.token_ids):
        assert made.logprobs[place] == pytest.approx(expected[len(prompt) - 1 + place, token], abs=1e-5)
    assert text.generate("ab", max_tokens=2).logprobs is None


def test_a_text_goes_on_past_the_end_of_the_block(text):
    made = text.generate("a" * (3 * BLOCK), max_tokens=5 * BLOCK)
    assert (len(made.token_ids), made.finish_reason) == (5 * BLOCK, "length")
    assert made.token_ids == text.generate("a" * BLOCK, max_tokens=5 * BLOCK).token_ids


def test_an_empty_prompt_starts_from_token_0(text):
    assert text.generate("", max_tokens=9).token_ids == text.generate([0], max_tokens=9).token_ids
    assert text.generate([], max_tokens=9).token_ids == text.generate([0], max_tokens=9).token_ids


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": "aXb€"}, "prompt: .*without 'X' '€'"),
        ({"prompt": [0, 31]}, "token ids from 0 to 30"),
        ({"prompt": [True]}, "token ids"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": -1}, "seed"),
        ({"index": -1}, "index"),
        ({"index": 2**64}, "index"),
        ({"prompt": None}, "prompt: got None; valid: text or token ids"),
        ({"stop": None}, "stop: got None"),
        ({"stop": 5}, "stop: got 5"),
    ],
)
def test_a_setting_out_of_range_is_named(text, settings, message):
    with pytest.raises(InputError, match=message):
        text.generate(**({"prompt": "ab"} | settings))


@pytest.mark.parametrize(("prompt", "length"), [("abc", 3), ([1, 2], 2), ("ab" * 40, 80), ("", 1)])
def test_a_generation_knows_how_long_its_prompt_was(text, prompt, length):
    assert text.generate(prompt, max_tokens=1).prompt_tokens == length


def test_a_closed_stream_ends_with_what_it_gave(text):
    pieces = text.generate("ab", max_tokens=1000, stream=True)
    given = next(iter(pieces))
    pieces.close()
    assert not list(pieces)
    assert pieces.generation.text == given
    assert pieces.generation.finish_reason is None


def test_samples_begin_alike_however_many_are_asked_for(text):
    assert text.sample(3, seed=5).shape == (3, BLOCK)
    assert (text.sample(20, seed=5)[:3] == text.sample(3, seed=5)).all()
    assert text.sample(3).dtype == np.int64
