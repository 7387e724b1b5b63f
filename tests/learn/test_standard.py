"""The next-token graph in standard operators: the same texts, for any reader, in any company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from triptych.bundle import reader
from triptych.bundle.consistency import problems
from triptych.infer import GenerationRequest
from triptych.infer.engine import Engine
from triptych.infer.onnx_runtime import OnnxRuntimeBackend
from triptych.learn import Transformer
from triptych.learn.data.text import character_tokenizer
from triptych.learn.export import export

LETTERS = "\n abcdefgh"
KINDS = {
    "rotary, shared keys, a window": {"width": 64, "heads": 4, "kv_heads": 2, "window": 5},
    "learned positions, heads filled up": {"width": 24, "heads": 2, "positions": "learned"},
}


@pytest.fixture(scope="module", params=KINDS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> reader.Bundle:
    torch.manual_seed(0)
    config = Transformer.Config(vocab_size=len(LETTERS), block_size=16, layers=2, **KINDS[request.param])
    model = Transformer(config)
    for parameter in model.parameters():
        parameter.data *= 4  # or all tokens would be about as likely
    folder = tmp_path_factory.mktemp("standard") / "text"
    return reader.read(export(model, folder, tokenizer=character_tokenizer(LETTERS).to_str()))


def engine(bundle: reader.Bundle, graph: str) -> Engine:
    return Engine(bundle, OnnxRuntimeBackend(bundle, 1), graph)


def test_the_likeliest_tokens_are_those_of_the_fast_graph(bundle: reader.Bundle) -> None:
    """Past the end of the block too, where the older half of a row is read again."""
    fast, standard = engine(bundle, "next_token"), engine(bundle, "next_token_standard")
    for prompt in ("a", "bad\ncafe", "h" * 16):
        wanted, found = (
            each.generate(prompt, max_tokens=30, temperature=0, logprobs=True) for each in (fast, standard)
        )
        assert found.token_ids == wanted.token_ids
        np.testing.assert_allclose(found.logprobs, wanted.logprobs, rtol=0, atol=1e-4)


def test_a_ragged_crowd_gets_the_bytes_each_would_get_alone(bundle: reader.Bundle) -> None:
    standard = engine(bundle, "next_token_standard")
    requests = [
        GenerationRequest(prompt="a" * (1 + 5 * number % 16), max_tokens=20, logprobs=True, index=number)
        for number in range(8)
    ]
    loop = standard.decode_loop(8)
    found = {loop.add(request): [] for request in requests}
    while len(loop):
        for event in loop.step():
            found[event.id].append((event.token_id, event.logprob))
    for request, crowd in zip(requests, found.values(), strict=True):
        made = standard.generate(request.prompt, max_tokens=20, logprobs=True, index=request.index)
        assert list(zip(made.token_ids, made.logprobs, strict=True)) == crowd


def test_the_manifest_says_so_and_the_graph_keeps_to_it(bundle: reader.Bundle) -> None:
    records = {record.name: record for record in bundle.manifest.graphs}
    record, fast = records[bundle.manifest.sampler.standard_graph], records["next_token"]
    assert (record.inputs, record.outputs) == (fast.inputs, fast.outputs)
    assert set(record.operator_sets) == {"ai.onnx"} < set(fast.operator_sets)
    assert record.parity.max_abs_error <= record.parity.tolerance == fast.parity.tolerance
    model = onnx.load(bundle.folder / record.file, load_external_data=False)
    assert {node.domain for node in model.graph.node} == {""}


def test_a_standard_graph_with_other_operators_is_no_bundle(bundle: reader.Bundle) -> None:
    from msgspec.structs import replace

    sampler = replace(bundle.manifest.sampler, standard_graph="next_token")
    (said,) = problems(replace(bundle.manifest, sampler=sampler))
    assert "next_token is to be in standard operators, and has some of com.microsoft" in said


def test_another_reader_computes_the_same(bundle: reader.Bundle) -> None:
    """ONNX's own reference implementation: a prompt into both rows, then a token after each."""
    folder: Path = bundle.folder
    other = ReferenceEvaluator(onnx.load(folder / "next_token_standard.onnx"))
    ours = OnnxRuntimeBackend(bundle, 1)
    record = next(record for record in bundle.manifest.graphs if record.name == "next_token")
    pasts = [spec for spec in record.inputs if spec.name.startswith("past_")]
    past = {spec.name: np.zeros((2, *spec.shape[1:]), np.float32) for spec in pasts}
    reads = [([[3, 4, 5], [6, 7, 8]], [2, 2], 3), ([[9], [2]], [3, 3], 16)]
    for tokens, last, in_use in reads:
        inputs = {
            "tokens": np.array(tokens, np.int64),
            "seqlens_k": np.array(last, np.int32),
            "total_sequence_length": np.array(in_use, np.int32),
            **past,
        }
        wanted = ours.run("next_token", inputs)
        found = dict(zip(wanted, other.run(list(wanted), inputs), strict=True))
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4)
        past = {spec.name: wanted[spec.name.replace("past_", "present_")] for spec in pasts}
