"""Which bytes an ONNX graph refers to, read from its protobuf without the `onnx` package.

Serving needs no ONNX tooling, yet must know before an engine opens a graph that its external data stays
inside the bundle. Of the whole format only tensors matter here, wherever they stand: initialisers, attributes
of nodes, subgraphs, functions. The field numbers are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# message -> {field number: message}: the paths that lead to a TensorProto
NESTED = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
NAME, RAW_DATA, EXTERNAL_DATA = 8, 9, 13


class External(NamedTuple):
    """A tensor whose bytes lie in another file."""

    name: str
    location: str
    offset: int
    size_bytes: int


def external_tensors(graph: bytes) -> Iterator[External]:
    """Every tensor of a serialised ONNX model that lies outside it.

    Raises: ValueError when the bytes are not an ONNX model.
    """
    for tensor in tensors(memoryview(graph), "model"):
        found = list(fields(tensor))
        entries = dict(entry(value) for number, value in found if number == EXTERNAL_DATA)
        if entries:
            name = next((bytes(value).decode() for number, value in found if number == NAME), "")
            offset, size_bytes = int(entries.get("offset", -1)), int(entries.get("length", -1))
            yield External(name, entries.get("location", ""), offset, size_bytes)


def tensors(message: memoryview, kind: str) -> Iterator[memoryview]:
    """Every TensorProto inside a message of `kind`."""
    if kind == "tensor":
        yield message
        return
    for number, value in fields(message):
        if number in NESTED[kind]:
            yield from tensors(value, NESTED[kind][number])


def entry(message: memoryview) -> tuple[str, str]:
    """A StringStringEntryProto."""
    found = {number: bytes(value).decode() for number, value in fields(message)}
    return found.get(1, ""), found.get(2, "")


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a protobuf message; numbers are stepped over."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == BYTES:
            length, at = varint(message, at)
            if at + length > len(message):
                raise ValueError("a field reaches beyond its message")
            yield number, message[at : at + length]
            at += length
        elif wire_type == VARINT:
            _, at = varint(message, at)
        elif wire_type in (FIXED64, FIXED32):
            at += 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type} does not occur in ONNX")


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at`, and where the next thing begins."""
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("an integer has no end")
