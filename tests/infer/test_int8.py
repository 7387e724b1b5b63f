"""Text with rounded weights: the same bytes in any company, near float32, and refused beyond the gate."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import triptych
from triptych.bundle.manifest import TextPrecision
from triptych.bundle.rounded import is_rounded
from triptych.errors import ConfigError
from triptych.infer import GenerationRequest
from triptych.infer.selection import token_graph
from triptych.learn import int8


@pytest.fixture(scope="module")
def rounded(text_bundle):
    with triptych.load(text_bundle, precision="int8") as engine:
        yield engine


def test_a_ragged_crowd_gets_the_bytes_each_would_get_alone(rounded):
    lengths = [1 + 5 * number % 16 for number in range(16)]
    requests = [
        GenerationRequest(prompt="a" * length, max_tokens=24, logprobs=True, index=length)
        for length in lengths
    ]
    loop = rounded.decode_loop(16)
    found = {loop.add(request): [] for request in requests}
    while len(loop):
        for event in loop.step():
            found[event.id].append((event.token_id, event.logprob))
    for request, crowd in zip(requests, found.values(), strict=True):
        made = rounded.generate(request.prompt, max_tokens=24, logprobs=True, index=request.index)
        assert list(zip(made.token_ids, made.logprobs, strict=True)) == crowd


def test_rounded_weights_are_near_and_recorded(text, rounded):
    precision = text.text_sampler.precisions[2]
    assert precision.cache_precision == "f32"
    assert (precision.precision, precision.graph, precision.refused) == ("int8", "next_token_int8", "")
    assert 0 < precision.quality.value < precision.quality.limit
    assert precision.quality.measure == "kl_nats_per_token"
    ours = rounded.generate("ab", max_tokens=1, logprobs=True, top_logprobs=20).top_logprobs[0]
    exact = text.generate("ab", max_tokens=1, logprobs=True, top_logprobs=20).top_logprobs[0]
    shared = ours.keys() & exact.keys()
    assert len(shared) > 10
    assert max(abs(ours[token] - exact[token]) for token in shared) < 0.05
    assert any(ours[token] != exact[token] for token in shared)


def test_float32_is_the_default_and_auto_takes_int8_within_its_gate(text, text_bundle):
    assert text.token_graph == "next_token"
    with triptych.load(text_bundle, precision="auto") as engine:
        assert engine.token_graph == "next_token_int8"


def test_int8_beyond_its_gate_is_refused_with_the_figure(text):
    found = text.text_sampler.precisions[2]
    worse = msgspec.structs.replace(found.quality, value=0.5)
    precision = msgspec.structs.replace(found, quality=worse, refused=int8.refusal(worse))
    sampler = msgspec.structs.replace(text.text_sampler, precisions=(precision,))
    manifest = msgspec.structs.replace(text.manifest, sampler=sampler)
    with pytest.raises(ConfigError, match=r"0.5 nats from those of float32, up to 0.01"):
        token_graph(manifest, "int8")
    assert token_graph(manifest, "auto") == token_graph(manifest, "f32") == "next_token"


def test_text_has_no_openvino_in_any_precision(text_bundle):
    for precision in ("f32", "int8"):
        with pytest.raises(ConfigError, match="it computes row graphs only"):
            triptych.load(text_bundle, engine="openvino", precision=precision)


def test_a_precision_whose_graph_is_missing_is_no_bundle(text):
    from triptych.bundle.consistency import problems

    sampler = msgspec.structs.replace(
        text.text_sampler, precisions=(TextPrecision(precision="int8", graph="lost"),)
    )
    manifest = msgspec.structs.replace(text.manifest, sampler=sampler)
    assert any("'lost'" in problem for problem in problems(manifest))


@given(st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**31 - 1))
def test_rounding_is_off_by_half_a_step_at_most(rows, columns, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    steps, scale = int8.rounded(weight)
    restored = ((steps.float() - int8.MIDDLE) * scale[..., None]).flatten(1)[:, :columns]
    allowed = scale.repeat_interleave(int8.BLOCK, 1)[:, :columns] * (0.5 + 1e-4)
    assert ((restored - weight).abs() <= allowed).all()


def test_rounded_weights_lie_beside_the_models_own(text):
    names = [name for name in text._weights.extents if is_rounded(name)]
    assert "blocks.0.attention.qkv.weight.int8" in names
    own = text.tensor("blocks.0.attention.qkv.weight")
    steps, scale = (text.tensor(f"blocks.0.attention.qkv.weight.int8{end}") for end in ("", "_scale"))
    restored = (steps.astype(np.float32) - 128) * scale[..., None]
    assert np.abs(restored.reshape(len(own), -1)[:, : own.shape[1]] - own).max() <= scale.max() * 0.51
