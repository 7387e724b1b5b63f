import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import triptych
from triptych.errors import BundleError, InputError
from triptych.infer import GenerationRequest

BLOCK = 16

requests = st.builds(
    GenerationRequest,
    prompt=st.text("ab äz.\n", max_size=3 * BLOCK),
    max_tokens=st.integers(1, 3 * BLOCK),
    temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5]),
    top_p=st.sampled_from([1.0, 0.9, 0.3]),
    min_p=st.sampled_from([0.0, 0.2]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, -1.0]),
    logit_bias=st.dictionaries(st.integers(0, 30), st.sampled_from([-100.0, 2.0]), max_size=2),
    stop=st.lists(st.text("ab é", min_size=1, max_size=2), max_size=2).map(tuple),
    logprobs=st.just(True),
    top_logprobs=st.sampled_from([0, 3]),
    seed=st.integers(0, 2**63 - 1),
    index=st.integers(0, 3),
)


def asked_for(request):
    """The settings of a request, as `generate` takes them."""
    return {name: getattr(request, name) for name in request.__struct_fields__}


def alone(engine, request):
    made = engine.generate(**asked_for(request))
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
@given(requests, st.booleans())
def test_streamed_pieces_together_are_the_text(text, request, echo):
    wanted = asked_for(request) | {"echo": echo, "prompt": request.prompt[:BLOCK]}
    pieces = text.generate(**wanted, stream=True)
    whole = text.generate(**wanted)
    assert "".join(pieces) == whole.text
    assert pieces.generation == whole
    assert not any(stop in whole.text.removeprefix(wanted["prompt"]) for stop in request.stop)


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
        ({"prompt": b"To be"}, "prompt: got b'To be'; valid: text or token ids"),
        ({"prompt": bytearray(b"ab")}, "prompt: got bytearray"),
        ({"prompt": memoryview(b"ab")}, "prompt: got <memory"),
        ({"prompt": np.array(3)}, "prompt: got array"),
        ({"temperature": 10**400}, "temperature: got 1000.*; valid: a number from 0 to 100"),
        ({"top_p": 10**400}, "top_p: got 1000"),
        ({"logit_bias": {3: -(10**400)}}, "logit_bias: got"),
        ({"stop": b"ab"}, "stop: got b'ab'"),
        ({"stop": None}, "stop: got None"),
        ({"stop": 5}, "stop: got 5"),
        ({"min_p": 1.5}, "min_p: got 1.5; valid: a number from 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"presence_penalty": None}, "presence_penalty"),
        ({"logit_bias": {31: 1.0}}, "logit_bias: got 31; valid: token ids from 0 to 30"),
        ({"logit_bias": {3: 101}}, "logit_bias"),
        ({"logit_bias": [3]}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs: got 2; valid: 0 without logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "from 0 to 20"),
        ({"logprobs": 2}, "logprobs: got 2; valid: true or false"),
        ({"echo": True, "logprobs": True, "prompt": "a" * 17}, "echo: .*17 tokens"),
        ({"n": 0}, "n: got 0"),
        ({"n": 3, "best_of": 2}, "best_of: got 2; valid: an integer from n = 3"),
        ({"n": 2, "stream": True}, "n: does not go with stream"),
        ({"best_of": 2, "stream": True}, "best_of: does not go with stream"),
        ({"temprature": 0}, "temprature"),
    ],
)
def test_a_setting_out_of_range_is_named(text, settings, message):
    with pytest.raises(InputError, match=message):
        text.generate(**({"prompt": "ab"} | settings))


@pytest.mark.parametrize(("prompt", "length"), [("abc", 3), ([1, 2], 2), ("ab" * 40, 80), ("", 1)])
def test_a_generation_knows_how_long_its_prompt_was(text, prompt, length):
    assert text.generate(prompt, max_tokens=1).prompt_tokens == length


def test_numbers_of_numpy_are_numbers(text):
    """A prompt may be a piece of a sample, as it is."""
    row, one = text.sample(1, seed=4)[0], np.int64(1)
    given = {"max_tokens": 5 * one, "temperature": np.float32(0.5), "logit_bias": {one: np.float32(3.0)}}
    made = text.generate(row[:6], seed=one, **given)
    assert made == text.generate(row[:6].tolist(), max_tokens=5, temperature=0.5, logit_bias={1: 3.0}, seed=1)


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


def test_a_closed_stream_gives_no_more_of_a_step_that_gave_several_tokens(text):
    stream = text.generate("abba", max_tokens=9, echo=True, stream=True)
    pieces = iter(stream)
    assert next(pieces) == "a"
    stream.close()
    assert [*pieces, *stream] == []
    assert stream.generation.text == "a"


def test_a_stream_goes_on_where_it_was_left(text):
    stream = text.generate("abba", max_tokens=9, echo=True, stream=True)
    given = next(iter(stream)) + "".join(stream)
    assert given == stream.generation.text == text.generate("abba", max_tokens=9, echo=True).text


def test_choices_are_those_of_their_index(text):
    choices = text.generate("ab", n=3, max_tokens=9, seed=4, index=2)
    assert choices == [text.generate("ab", max_tokens=9, seed=4, index=2 + number) for number in range(3)]
    assert text.generate("ab", n=1, max_tokens=9) == [text.generate("ab", max_tokens=9)]


@pytest.mark.parametrize("echo", [False, True])
def test_the_best_are_those_with_the_highest_log_probability_per_token(text, echo):
    best = text.generate("ab", n=2, best_of=6, max_tokens=9, stop="e", echo=echo)
    every = text.generate("ab", n=6, max_tokens=9, stop="e", echo=echo, logprobs=True)
    start = 2 if echo else 0
    ranked = sorted(every, key=lambda made: -np.mean(made.logprobs[start:]))
    assert [made.text for made in best] == [made.text for made in ranked[:2]]
    assert best[0].logprobs is None


def test_an_echo_of_no_prompt_leaves_every_token_to_rank_by(text):
    asked = {"max_tokens": 1, "echo": True, "seed": 1}
    best = text.generate("", n=2, best_of=6, **asked)
    ranked = sorted(text.generate("", n=6, logprobs=True, **asked), key=lambda made: -np.mean(made.logprobs))
    assert [made.text for made in best] == [made.text for made in ranked[:2]]


def test_an_echo_scores_the_prompt(text):
    made = text.generate("abba", max_tokens=0, echo=True, logprobs=True, top_logprobs=2)
    tokens = text.tokenizer.encode("abba")
    logits = text.run("score", {"tokens": [tokens]})["logits"][0].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert (made.text, made.token_ids, made.finish_reason) == ("abba", tokens, "length")
    assert made.logprobs[0] is None
    assert made.logprobs[1:] == pytest.approx([expected[place, tokens[place + 1]] for place in range(3)])
    assert made.top_logprobs[0] == {}
    assert list(made.top_logprobs[2]) == np.argsort(-expected[1])[:2].tolist()


def test_an_echo_goes_before_the_text(text):
    plain, echoed = text.generate("ab", max_tokens=9), text.generate("ab", max_tokens=9, echo=True)
    assert echoed.text == "ab" + plain.text
    assert echoed.token_ids == text.tokenizer.encode("ab") + plain.token_ids


def test_the_likeliest_tokens_are_told_beside_the_chosen_one(text):
    made = text.generate("ab", max_tokens=9, logprobs=True, top_logprobs=3, temperature=2.0)
    greedy = text.generate("ab", max_tokens=9, logprobs=True, top_logprobs=1, temperature=0)
    assert [len(top) for top in made.top_logprobs] == [3] * 9
    for token, logprob, top in zip(made.token_ids, made.logprobs, made.top_logprobs, strict=True):
        assert list(top.values()) == sorted(top.values(), reverse=True)
        assert top.get(token, logprob) == logprob <= max(top.values())
    assert [next(iter(top)) for top in greedy.top_logprobs] == greedy.token_ids


def test_a_biased_token_is_always_or_never_made(text):
    assert set(text.generate("ab", max_tokens=20, logit_bias={7: 100}).token_ids) == {7}
    plain = text.generate("ab", max_tokens=40).token_ids
    assert plain[0] not in text.generate("ab", max_tokens=40, logit_bias={plain[0]: -100}).token_ids


def test_a_prompt_read_before_gives_the_same_bytes(text):
    requests = [GenerationRequest(prompt="abba", max_tokens=9, index=index) for index in range(6)]
    found = []
    for prefix_bytes in (0, 2**20):
        loop = text.decode_loop(4, prefix_bytes=prefix_bytes)
        tokens = {loop.add(request): [] for request in requests}
        while len(loop):
            for event in loop.step():
                tokens[event.id].append(event.token_id)
        found.append(list(tokens.values()))
    assert found[0] == found[1] == [text.generate("abba", max_tokens=9, index=i).token_ids for i in range(6)]


def test_sequences_join_in_order_and_take_a_token_each_in_turn(text):
    loop = text.decode_loop(3)
    ids = [loop.add(GenerationRequest(prompt="ab", max_tokens=4, index=index)) for index in range(8)]
    steps = []
    while len(loop):
        steps.append([event.id for event in loop.step()])
    assert all(len(set(step)) == len(step) <= 3 for step in steps)
    assert sorted(steps[0]) == ids[:3]
    first = [next(number for number, step in enumerate(steps) if id in step) for id in ids]
    assert first == sorted(first)
    assert sum(step.count(ids[5]) for step in steps) == 4


@pytest.mark.parametrize("fault", ["its prompt cannot be read", "its prompt cannot be scored", "no numbers"])
def test_a_sequence_that_fails_ends_alone(text, fault, monkeypatch):
    plain = {"max_tokens": 2 * BLOCK, "seed": 5}
    expected = text.generate("ab", **plain)
    loop = text.decode_loop(3)
    innocent = loop.add(GenerationRequest(prompt="ab", **plain))
    made = [event for _ in range(3) for event in loop.step()]
    echo = fault == "its prompt cannot be scored"
    guilty = loop.add(GenerationRequest(prompt="ba", echo=echo, logprobs=echo, max_tokens=9))
    other = loop.add(GenerationRequest(prompt="ab", **plain))
    read = loop._prefixes.read

    def read_badly(row, tokens):
        if row != 1 or list(tokens) != text.tokenizer.encode("ba"):
            return read(row, tokens)
        if fault == "no numbers":
            return np.full_like(read(row, tokens), np.nan)
        raise MemoryError

    def score(_):
        raise MemoryError

    monkeypatch.setattr(loop._prefixes, "read", read_badly)
    monkeypatch.setattr(loop, "_score", score)
    while len(loop):
        made += loop.step()
    for id in (innocent, other):
        assert [event.token_id for event in made if event.id == id] == expected.token_ids
    (event,) = [event for event in made if event.id == guilty]
    assert isinstance(event.error, BundleError if fault == "no numbers" else MemoryError)


def test_whoever_asks_for_one_text_gets_the_error_it_failed_of(text, monkeypatch):
    monkeypatch.setattr(type(text), "_score", lambda _, tokens: np.zeros((1, 1))[tokens])
    with pytest.raises(IndexError):
        text.generate("ab", echo=True, logprobs=True, max_tokens=1)
