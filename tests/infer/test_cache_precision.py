"""Text with a cache of fewer bits: less memory, the same bytes in any company, refused beyond the gate."""

import itertools
import math

import msgspec
import numpy as np
import pytest
import torch

import triptych
from triptych.bundle.consistency import problems
from triptych.bundle.rounded import is_rounded
from triptych.errors import ConfigError
from triptych.infer import GenerationRequest
from triptych.infer.selection import token_graph
from triptych.learn import Transformer, int8, rounded_cache
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

WAYS = list(itertools.product(("f32", "int8"), ("f16", "int8")))
BYTES = {"f32": 4, "f16": 2, "int8": 1}


@pytest.fixture(scope="module", params=WAYS, ids="weights {0[0]}, cache {0[1]}".format)
def rounded(request, text_bundle):
    precision, cache_precision = request.param
    with triptych.load(text_bundle, precision=precision, cache_precision=cache_precision) as engine:
        yield engine


def crowd(engine, requests):
    loop = engine.decode_loop(16)
    found = {loop.add(request): [] for request in requests}
    while len(loop):
        for event in loop.step():
            found[event.id].append((event.token_id, event.logprob))
    return list(found.values())


def test_a_ragged_crowd_gets_the_bytes_each_would_get_alone(rounded):
    requests = [
        GenerationRequest(prompt="a" * (1 + 5 * n % 16), max_tokens=24, logprobs=True, index=n)
        for n in range(16)
    ]
    together = crowd(rounded, requests)
    for request, made in zip(requests, together, strict=True):
        assert crowd(rounded, [request]) == [made]
    assert crowd(rounded, requests[::-1]) == together[::-1]


def test_a_prompt_that_was_read_before_gives_the_same_bytes(rounded):
    loop = rounded.decode_loop(2)
    request = GenerationRequest(prompt="abba", max_tokens=20, logprobs=True)
    found = {loop.add(request): [] for _ in range(3)}
    while len(loop):
        for event in loop.step():
            found[event.id].append((event.token_id, event.logprob))
    first, *others = found.values()
    assert all(other == first for other in others)


def test_the_rows_take_as_much_less_memory(text, rounded):
    (way,) = (p for p in text.text_sampler.precisions if p.graph == rounded.token_graph)
    whole, held = (each.decode_loop(4, prefix_bytes=0).cache_bytes for each in (text, rounded))
    assert held * BYTES["f32"] == whole * BYTES[way.cache_precision]


def test_what_it_changes_is_small_and_recorded(text, rounded):
    (way,) = (p for p in text.text_sampler.precisions if p.graph == rounded.token_graph)
    assert (way.quality.measure, way.refused) == ("kl_nats_per_token", "")
    assert 0 < way.quality.value < way.quality.limit
    record = rounded.graph(rounded.token_graph)
    assert 0 < record.parity.max_abs_error <= record.parity.tolerance
    exact, near = (
        each.generate("ab", max_tokens=1, logprobs=True, top_logprobs=20).top_logprobs[0]
        for each in (text, rounded)
    )
    shared = exact.keys() & near.keys()
    assert len(shared) > 10
    assert max(abs(exact[token] - near[token]) for token in shared) < 0.05


def test_float32_is_kept_unless_asked_for_and_auto_weights_go_with_any_cache(text):
    manifest = text.manifest
    assert token_graph(manifest, "f32") == "next_token"
    assert token_graph(manifest, "auto", "int8") == "next_token_int8_cache_int8"
    assert (
        token_graph(manifest, "f32", "f16") == token_graph(manifest, "bf16", "f16") == "next_token_cache_f16"
    )


@pytest.mark.parametrize("cache_precision", ["bf16", "int4", None])
def test_a_precision_no_cache_has_is_an_error(text_bundle, cache_precision):
    with pytest.raises(ConfigError, match=r"cache_precision.*f32, f16, int8"):
        triptych.load(text_bundle, cache_precision=cache_precision)


def test_a_model_without_a_cache_refuses_its_precision(vae_bundle):
    with pytest.raises(ConfigError, match="no cached step with its cache in int8"):
        triptych.load(vae_bundle, cache_precision="int8")


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_a_cache_beyond_its_gate_is_refused_with_the_figure(text, value):
    worse = msgspec.structs.replace(text.text_sampler.precisions[0].quality, value=value)
    ways = [
        msgspec.structs.replace(way, refused=int8.refusal(worse)) if way.cache_precision == "int8" else way
        for way in text.text_sampler.precisions
    ]
    sampler = msgspec.structs.replace(text.text_sampler, precisions=tuple(ways))
    manifest = msgspec.structs.replace(text.manifest, sampler=sampler)
    for precision in ("f32", "int8", "auto"):
        with pytest.raises(ConfigError, match=rf"{value} nats from those of float32, up to 0.01"):
            token_graph(manifest, precision, "int8")
    assert token_graph(manifest, "f32", "f16") == "next_token_cache_f16"


def test_a_cache_that_computes_something_else_is_refused_and_the_model_is_exported(tmp_path):
    """In a block of one token its scales are those of the start token, and other tokens' keys are cut off."""
    torch.manual_seed(0)
    model = Transformer(Transformer.Config(vocab_size=31, block_size=1, layers=1, heads=1, width=8))
    for matrix in (each for each in model.parameters() if each.ndim > 1):
        torch.nn.init.normal_(matrix, std=0.3)
    tokenizer = character_tokenizer("\n" + "".join(map(chr, range(97, 127))))
    folder = export(model, tmp_path / "b", tokenizer=tokenizer.to_str())
    with pytest.raises(ConfigError, match="cache_precision: differs from torch by"):
        triptych.load(folder, cache_precision="int8")
    with triptych.load(folder) as engine:
        assert len(engine.generate("a", max_tokens=5).token_ids) == 5


@pytest.mark.parametrize("cache_precision", ["f16", "int4"])
def test_a_cache_of_another_precision_than_the_graphs_is_no_bundle(text, cache_precision):
    way = msgspec.structs.replace(text.text_sampler.precisions[1], cache_precision=cache_precision)
    sampler = msgspec.structs.replace(text.text_sampler, precisions=(way,))
    assert list(problems(msgspec.structs.replace(text.manifest, sampler=sampler)))


def test_the_reference_rounds_to_the_nearest_the_cache_can_hold(text):
    """Half a step off at most, and the nearest that can be held where a number is beyond the range."""
    scale = torch.from_numpy(np.array(text.tensor("key_0.cache_scale")))
    assert is_rounded("key_0.cache_scale")
    assert scale.shape == (text.text_sampler.kv_heads, text.text_sampler.head_dim)
    numbers = torch.randn(3, scale.shape[0], 5, scale.shape[1], generator=torch.Generator().manual_seed(0))
    reference = rounded_cache.RoundedCache(torch.nn.Identity(), "int8", [scale])
    numbers *= scale[:, None] * 60
    held = reference.rounded(numbers, reference.scales[0])
    back = reference.restored(held, reference.scales[0])
    inside = numbers.abs() <= scale[:, None] * 127
    assert ((back - numbers).abs() <= scale[:, None] * 0.5001)[inside].all()
    assert (held[~inside].int().abs() >= 127).all()
    assert (~inside).any()


def test_the_standard_step_is_an_option(text, text_bundle, vae_bundle):
    with triptych.load(text_bundle, operators="standard") as engine:
        assert engine.token_graph == text.text_sampler.standard_graph
        made = [each.generate("ab", max_tokens=20, temperature=0).token_ids for each in (text, engine)]
        assert made[0] == made[1]
    for settings, message in (
        ({"precision": "int8"}, r"precision: got 'int8' with operators='standard'"),
        ({"cache_precision": "f16"}, r"cache_precision: got 'f16' with operators='standard'"),
    ):
        with pytest.raises(ConfigError, match=message):
            triptych.load(text_bundle, operators="standard", **settings)
    with pytest.raises(ConfigError, match="no cached step in them"):
        triptych.load(vae_bundle, operators="standard")
    with pytest.raises(ConfigError, match=r"operators.*any, standard"):
        triptych.load(text_bundle, operators="contrib")
