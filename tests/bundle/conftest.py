"""A small bundle made by hand: one matrix product, no exporter."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from triptych.bundle import digest, writer
from triptych.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    WEIGHTS,
    GraphRecord,
    LatentSampler,
    Manifest,
    Parity,
    TensorSpec,
)
from triptych.bundle.weights import extents

LATENT, PIXELS = 3, 4


def graph_file(offset: int, length: int, location: str = WEIGHTS) -> bytes:
    """decode: z -> z @ weight, the weight being external."""
    weight = TensorProto(name="weight", dims=[LATENT, PIXELS], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=str(value))
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", LATENT])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", PIXELS])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["z", "weight"], ["x"])], "decode", [z], [x], [weight]
    )
    opset = helper.make_opsetid("", 20)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()


def manifest() -> Manifest:
    """What the hand-made bundle says of itself."""
    z = TensorSpec(name="z", shape=("batch", LATENT))
    x = TensorSpec(name="x", shape=("batch", PIXELS))
    record = GraphRecord(
        name="decode",
        file="decode.onnx",
        inputs=(z,),
        outputs=(x,),
        operator_sets={"ai.onnx": 20},
        engines=("onnxruntime",),
        row_buckets=(4, 8),
        parity=Parity(max_abs_error=0.0, max_ulp_error=0.0, tolerance=1e-6, examples=1),
    )
    return Manifest(
        format_version=FORMAT_VERSION,
        name="by-hand",
        family="vae",
        version="",
        config={},
        sample=TensorSpec(name="x", shape=(PIXELS,)),
        sampler=LatentSampler(graph="decode", input="z", output="x", latent_shape=(LATENT,)),
        graphs=(record,),
        files={},
        training={},
        created_with={"triptych": "0"},
    )


def write_by_hand(destination: Path, weight: np.ndarray, **external: object) -> Path:
    """Write the bundle; `external` overrides where its graph says that the weight lies."""

    def fill(folder: Path) -> Manifest:
        save_file({"weight": weight}, folder / WEIGHTS)
        extent = extents(folder / WEIGHTS)["weight"]
        at = {"offset": extent.offset, "length": extent.size_bytes} | external
        (folder / "decode.onnx").write_bytes(graph_file(**at))
        return manifest()

    return writer.write(destination, fill)


def reseal_by_hand(folder, change):
    """Change the manifest and give it a right digest again, and where it can have one, a right version."""
    document = msgspec.json.decode((folder / MANIFEST).read_bytes())
    before, files = document["version"], document["files"]
    change(document)
    content = [WEIGHTS, *(graph["file"] for graph in document["graphs"])]
    if document["version"] == before and files.keys() >= set(content):
        document["version"] = digest.sha256("".join(files[name]["sha256"] for name in content).encode())[:12]
    document["digest"] = ""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    (folder / MANIFEST).write_bytes(digest.seal(text))


@pytest.fixture
def reseal():
    return reseal_by_hand


@pytest.fixture
def rewrite(reseal):
    """Change a graph of a bundle, and give the bundle right digests again."""

    def change_graph(folder, name, change):
        proto = onnx.load(folder / name, load_external_data=False)
        change(proto)
        data = proto.SerializeToString()
        (folder / name).write_bytes(data)
        record = {"size_bytes": len(data), "sha256": digest.sha256(data)}
        reseal(folder, lambda document: document["files"].update({name: record}))

    return change_graph


@pytest.fixture
def write_bundle():
    return write_by_hand


@pytest.fixture
def by_hand(tmp_path):
    weight = np.arange(LATENT * PIXELS, dtype=np.float32).reshape(LATENT, PIXELS)
    return write_by_hand(tmp_path / "by-hand", weight)
