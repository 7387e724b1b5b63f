"""A manifest whose digest is right, and which still says what cannot be."""

import msgspec
import pytest

import triptych
from triptych.bundle import consistency, digest, reader
from triptych.bundle.manifest import MANIFEST, TOKENIZER, WEIGHTS
from triptych.errors import BundleRefused

GRAPH = ("graphs", 0)
CHANGES = {
    "the name leaves the folder": ("name", "../a"),
    "the name moves the cursor": ("name", "\x1b[2J"),
    "the name is empty": ("name", ""),
    "a version with a line of its own": ("version", "0123456789a\n"),
    "a version in capitals": ("version", "0123456789AB"),
    "a version of 13 digits": ("version", "0123456789abc"),
    "no version": ("version", ""),
    "a sample has no size": ("sample", "shape", ["n"]),
    "a sample is of objects": ("sample", "dtype", "object"),
    "no graphs": ("graphs", []),
    "a batch of no rows": (*GRAPH, "row_buckets", [0]),
    "batches in disorder": (*GRAPH, "row_buckets", [4, 2]),
    "a batch too large": (*GRAPH, "row_buckets", [2**40]),
    "an unknown dtype": (*GRAPH, "inputs", 0, "dtype", "float128"),
    "a negative size": (*GRAPH, "inputs", 0, "shape", ["batch", -1]),
    "another input": (*GRAPH, "inputs", 0, "name", "y"),
    "no inputs": (*GRAPH, "inputs", []),
    "no outputs": (*GRAPH, "outputs", []),
    "a graph that is the weights": (*GRAPH, "file", WEIGHTS),
    "a graph that is the tokenizer": (*GRAPH, "file", TOKENIZER),
    "a likelihood that is no name": ("config", "likelihood", ["bernoulli"]),
    "a sigma that is no number": ("config", "sigma", "x"),
    "a sigma below 0": ("config", "sigma", -1.0),
    "a sampler without a graph": ("sampler", "graph", "generate"),
    "a sampler without its input": ("sampler", "input", "y"),
    "a sampler without its output": ("sampler", "output", "y"),
    "latents of another shape": ("sampler", "latent_shape", [7]),
    "a range upside down": (*GRAPH, "outputs", 0, "low", 1.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused_by_name(by_hand, reseal, change):
    *path, last, value = change

    def apply(document):
        document["graphs"][0]["outputs"][0]["high"] = 0.0
        for key in path:
            document = document[key]
        document[last] = value

    reseal(by_hand, apply)
    with pytest.raises(BundleRefused, match=MANIFEST):
        reader.read(by_hand)


@pytest.mark.parametrize(("latents", "rows"), [(2**31, 1), (2**14, 65_536)])
def test_inputs_that_no_memory_holds_are_refused(by_hand, reseal, latents, rows):
    def grow(document):
        document["sampler"]["latent_shape"] = [latents]
        document["graphs"][0] |= {"row_buckets": [1, rows] if rows > 1 else [1]}
        document["graphs"][0]["inputs"][0]["shape"] = ["batch", latents]

    reseal(by_hand, grow)
    with pytest.raises(BundleRefused, match="more than there is memory for"):
        reader.read(by_hand)


def test_two_graphs_of_one_name_are_refused(by_hand, reseal):
    reseal(by_hand, lambda document: document["graphs"].append(document["graphs"][0]))
    with pytest.raises(BundleRefused, match="two graphs"):
        reader.read(by_hand)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(("key", "value"), [("shape", ["batch", 9]), ("dtype", "int64"), ("name", "other")])
def test_a_graph_that_is_not_what_the_manifest_declares_is_refused_by_name(by_hand, reseal, side, key, value):
    def declare(document):
        document["graphs"][0][side][0][key] = value
        name = document["graphs"][0][side][0]["name"]
        document["sampler"]["input" if side == "inputs" else "output"] = name
        if key == "shape":
            document["sampler" if side == "inputs" else "sample"][
                "latent_shape" if side == "inputs" else "shape"
            ] = [9]

    reseal(by_hand, declare)
    with triptych.load(by_hand) as engine, pytest.raises(BundleRefused, match=r"decode\.onnx"):
        engine.open()


def test_a_graph_that_onnxruntime_refuses_in_broken_utf8_is_refused_in_silence(by_hand, reseal, capfd):
    data = (by_hand / "decode.onnx").read_bytes().replace(b"MatMul", b"MatM\xffl")
    (by_hand / "decode.onnx").write_bytes(data)
    record = {"size_bytes": len(data), "sha256": digest.sha256(data)}
    reseal(by_hand, lambda document: document["files"].update({"decode.onnx": record}))
    with triptych.load(by_hand) as engine, pytest.raises(BundleRefused, match=r"decode\.onnx"):
        engine.open()
    assert capfd.readouterr() == ("", "")


def test_a_whole_manifest_has_no_problems(by_hand):
    assert not list(consistency.problems(reader.read_manifest(by_hand)))
    assert msgspec.json.encode(reader.read_manifest(by_hand))
