"""The walk through an ONNX file's protobuf."""

import numpy as np
import onnx
import pytest

from triptych.bundle import reader, wire


def test_a_graph_in_memory_is_the_same_graph_with_other_places(by_hand):
    bundle = reader.read(by_hand)
    before = onnx.load_model_from_string(bundle.graphs["decode"])
    after = onnx.load_model_from_string(wire.in_memory(bundle.graphs["decode"], 10**15))
    (held,) = after.graph.initializer
    places = {entry.key: entry.value for entry in held.external_data}
    (extent,) = bundle.weights.extents.values()
    offset, length = str(10**15 + extent.offset), str(extent.size_bytes)
    assert places == {"location": "*/_ORT_MEM_ADDR_/*", "offset": offset, "length": length}
    for proto in (before, after):
        del proto.graph.initializer[0].external_data[:]
    assert before == after


def test_the_address_is_that_of_the_mapped_bytes(by_hand):
    import ctypes

    weights = reader.read(by_hand).weights
    (extent,) = weights.extents.values()
    held = (ctypes.c_char * extent.size_bytes).from_address(weights.address + extent.offset)
    assert bytes(held) == weights.array(extent).tobytes()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63])
def test_a_varint_reads_back(value):
    written = wire.as_varint(value)
    assert wire.varint(memoryview(written), 0) == (value, len(written))


def test_nothing_else_of_a_graph_changes(by_hand):
    proto = onnx.load_model_from_string(reader.read(by_hand).graphs["decode"])
    proto.graph.initializer[0].external_data.add(key="checksum", value="abc")
    proto.metadata_props.add(key="a", value="é" * 300)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(3), "inside"))
    same = onnx.load_model_from_string(wire.in_memory(proto.SerializeToString(), 0))
    offset = proto.graph.initializer[0].external_data
    next(entry for entry in offset if entry.key == "location").value = wire.MEMORY
    assert same == proto
