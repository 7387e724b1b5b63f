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
    proto.metadata_props.add(key="a", value="é" * 300)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(3), "inside"))
    same = onnx.load_model_from_string(wire.in_memory(proto.SerializeToString(), 0))
    offset = proto.graph.initializer[0].external_data
    next(entry for entry in offset if entry.key == "location").value = wire.MEMORY
    assert same == proto


HIDDEN = 1 << 32  # a bit of a tag that protobuf in C++ drops


def test_a_field_that_only_an_engine_reads_as_external_data_is_not_passed_over(by_hand):
    """With such a tag the location, which may be an address in memory, would not be checked."""
    proto = onnx.load_model_from_string(reader.read(by_hand).graphs["decode"])
    (tensor,) = proto.graph.initializer
    del tensor.external_data[:]
    entry = onnx.StringStringEntryProto(key="location", value=wire.MEMORY).SerializeToString()
    tag = wire.as_varint(wire.EXTERNAL_DATA << 3 | wire.BYTES | HIDDEN)
    disguised = tensor.SerializeToString() + tag + wire.as_varint(len(entry)) + entry
    with pytest.raises(ValueError, match="no number"):
        list(wire.external_tensors(wire.field(7, wire.field(5, disguised))))


def endless(attribute):
    """A graph of a few bytes that never ends, as the attribute of a node."""
    body = onnx.helper.make_graph([], "body", [], [])
    node = onnx.helper.make_node("Loop", ["n", "go"], ["y"], body=body)
    if attribute == "graphs":
        node.attribute[0].ClearField("g")
        node.attribute[0].graphs.add(name="body")
        node.attribute[0].type = onnx.AttributeProto.GRAPHS
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))


def test_what_can_loop_without_end_is_no_graph_of_a_bundle():
    function = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    function.functions.add(name="f", domain="d")
    for proto in (endless("g"), endless("graphs"), function):
        with pytest.raises(ValueError, match="it holds"):
            list(wire.external_tensors(proto.SerializeToString()))


@pytest.mark.parametrize(
    ("key", "value"), [("checksum", "1"), ("prepacked_0", "a|0;4"), ("offset", "0"), ("location", "x")]
)
def test_external_data_says_where_it_is_once_and_nothing_else(by_hand, key, value):
    proto = onnx.load_model_from_string(reader.read(by_hand).graphs["decode"])
    proto.graph.initializer[0].external_data.add(key=key, value=value)
    with pytest.raises(ValueError, match=key):
        list(wire.external_tensors(proto.SerializeToString()))


@pytest.mark.parametrize("said", ["-1", " 8", "1_0", "٣", "0x8", "+8", ""])
def test_a_place_is_written_in_plain_digits(by_hand, said):
    proto = onnx.load_model_from_string(reader.read(by_hand).graphs["decode"])
    next(entry for entry in proto.graph.initializer[0].external_data if entry.key == "offset").value = said
    (found,) = wire.external_tensors(proto.SerializeToString())
    assert found.offset == -1


def test_operator_sets_are_read_as_onnx_reads_them(by_hand):
    proto = onnx.load_model_from_string(reader.read(by_hand).graphs["decode"])
    proto.opset_import.add(domain="com.microsoft", version=1)
    assert wire.operator_sets(proto.SerializeToString()) == {"ai.onnx": 20, "com.microsoft": 1}
    proto.opset_import.add(domain="ai.onnx", version=2**62)
    with pytest.raises(ValueError, match="two versions"):
        wire.operator_sets(proto.SerializeToString())


def test_nodes_that_read_each_other_in_a_circle_are_no_graph(by_hand):
    """OpenVINO takes all memory for such a graph."""
    data = reader.read(by_hand).graphs["decode"]
    wire.check_order(data)
    proto = onnx.load_model_from_string(data)
    proto.graph.node.append(onnx.helper.make_node("Add", ["x", "again"], ["again"]))
    with pytest.raises(ValueError, match="reads b'again'"):
        wire.check_order(proto.SerializeToString())
