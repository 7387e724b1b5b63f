"""Which bytes an ONNX graph refers to, read from its protobuf without the `onnx` package, and where they are.

Serving needs no ONNX tooling, yet must know before an engine opens a graph that its external data stays
inside the bundle. Of the whole format only tensors matter here, wherever they stand: initialisers and
attributes of nodes. Subgraphs and functions are refused: no bundle needs them, and with them a graph of a few
bytes can loop without end. The field numbers are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ONNX = "ai.onnx"

# message -> {field number: message}: the paths that lead to a TensorProto
NESTED = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
REFUSED = {
    "model": {20: "a training graph", 25: "a function"},
    "attribute": {6: "a subgraph", 11: "subgraphs"},
}
OPERATOR_SET, DOMAIN, VERSION = 8, 1, 2
GRAPH, NODE, INPUT, OUTPUT = 7, 1, 1, 2
NAMES = {5: 8, 11: 1}  # of initialisers and of the graph's inputs
NAME, EXTERNAL_DATA = 8, 13
EXTENT = ("offset", "length")
PLACE = {"location", *EXTENT}
MAX_TAG = 2**32 - 1  # of a longer one protobuf's readers see the lower half, which may be another field's
MEMORY = "*/_ORT_MEM_ADDR_/*"  # onnxruntime's mark of a tensor whose offset is an address of this process


class External(NamedTuple):
    """A tensor whose bytes lie in another file."""

    name: str
    location: str
    offset: int
    size_bytes: int


def external_tensors(graph: bytes) -> Iterator[External]:
    """Every tensor of a serialised ONNX model that lies outside it.

    Raises: ValueError when the bytes are not an ONNX model, or one with what `REFUSED` has.
    """
    for tensor in tensors(memoryview(graph), "model"):
        name, entries = "", dict[str, str]()
        for number, value in fields(tensor):
            if number == NAME:
                name = bytes(value).decode()
            elif number == EXTERNAL_DATA:
                key, said = entry(value)
                if key not in PLACE or key in entries:
                    raise ValueError(f"external data has {key[:80]!r}, or has it twice")
                entries[key] = said
        if entries:
            yield External(name, entries.get("location", ""), *(whole(entries, key) for key in EXTENT))


def whole(entries: Mapping[str, str], key: str) -> int:
    """An entry in plain decimal digits; -1, which is no place, for what else `int` and other readers take."""
    said = entries.get(key, "")
    return int(said) if said.isascii() and said.isdigit() else -1


def external_bytes(graph: bytes) -> int:
    """How many bytes of tensors lie outside a serialised ONNX model. Raises as `external_tensors` does."""
    return sum(tensor.size_bytes for tensor in external_tensors(graph))


def operator_sets(graph: bytes) -> dict[str, int]:
    """Operator domain to version, as a manifest has it. Raises as `external_tensors` does."""
    found: dict[str, int] = {}
    for number, opset in fields(memoryview(graph)):
        if number == OPERATOR_SET:
            domain, version = b"", 0
            for number, _, _, value in spans(opset):
                if number == DOMAIN and isinstance(value, memoryview):
                    domain = bytes(value)
                elif number == VERSION and isinstance(value, int):
                    version = value
                else:
                    raise ValueError("an operator set has a domain and a version")
            name = domain.decode() or ONNX
            if name in found:
                raise ValueError(f"it has two versions of {name!r}")
            found[name] = version
    return found


def check_order(graph: bytes) -> None:
    """Raise `ValueError` for a node that reads what is not there before it, as nodes in a circle do: ONNX
    forbids it."""
    for _, body in (held for held in fields(memoryview(graph)) if held[0] == GRAPH):
        parts = list(fields(body))
        named = [value for number, part in parts if number in NAMES for value in strings(part, NAMES[number])]
        known = {b"", *named}  # an input that is left out has an empty name
        for number, node in parts:
            if number == NODE:
                if unknown := [name for name in strings(node, INPUT) if name not in known]:
                    raise ValueError(f"a node reads {unknown[0][:80]!r}, which is not there before it")
                known.update(strings(node, OUTPUT))


def strings(message: memoryview, number: int) -> list[bytes]:
    """The strings of a field that may be repeated."""
    return [bytes(value) for found, value in fields(message) if found == number]


def tensors(message: memoryview, kind: str) -> Iterator[memoryview]:
    """Every TensorProto inside a message of `kind`."""
    if kind == "tensor":
        yield message
        return
    nested, refused = NESTED[kind], REFUSED.get(kind, {})
    for number, value in fields(message):
        if number in nested:
            yield from tensors(value, nested[number])
        elif number in refused:
            raise ValueError(f"it holds {refused[number]}")


def in_memory(graph: bytes, address: int) -> bytes:
    """`graph` with its external tensors in memory, at `address` plus their offset, and in no file.

    That is how onnxruntime hands graphs to other libraries, OpenVINO among them: no tensor is copied.
    """
    return bytes(placed(memoryview(graph), "model", address))


def placed(message: memoryview, kind: str, address: int) -> bytearray:
    """A message of `kind` with every external tensor in memory."""
    made = bytearray()
    for number, start, end, value in spans(message):
        if not isinstance(value, memoryview):
            made += message[start:end]
        elif kind == "tensor" and number == EXTERNAL_DATA:
            key, said = entry(value)
            if key == "location":
                said = MEMORY
            elif key == "offset":
                said = str(address + int(said))
            made += field(number, field(1, key.encode()) + field(2, said.encode()))
        elif number in NESTED.get(kind, {}):
            made += field(number, placed(value, NESTED[kind][number], address))
        else:
            made += message[start:end]
    return made


def field(number: int, value: bytes | bytearray) -> bytes:
    """A length-delimited field."""
    return as_varint(number << 3 | BYTES) + as_varint(len(value)) + value


def as_varint(value: int) -> bytes:
    """An integer, seven bits to a byte, the lowest first."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def entry(message: memoryview) -> tuple[str, str]:
    """A StringStringEntryProto."""
    found = {number: bytes(value).decode() for number, value in fields(message)}
    return found.get(1, ""), found.get(2, "")


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The length-delimited fields of a protobuf message; numbers are stepped over."""
    for number, _, _, value in spans(message):
        if isinstance(value, memoryview):
            yield number, value


def spans(message: memoryview) -> Iterator[tuple[int, int, int, memoryview | int | None]]:
    """Every field of a protobuf message: its number, where it begins and ends, and its value if it is
    length-delimited or a varint."""
    end, size = 0, len(message)
    while end < size:
        start = end
        tag, at = varint(message, start)
        if not 8 <= tag <= MAX_TAG:
            raise ValueError("a field has no number")
        wire_type = tag & 7
        value: memoryview | int | None = None
        if wire_type == BYTES:
            length, at = varint(message, at)
            end = at + length
            value = message[at:end]
        elif wire_type == VARINT:
            value, end = varint(message, at)
        elif wire_type in (FIXED64, FIXED32):
            end = at + (8 if wire_type == FIXED64 else 4)
        else:
            raise ValueError(f"wire type {wire_type} does not occur in ONNX")
        if end > size:
            raise ValueError("a field reaches beyond its message")
        yield tag >> 3, start, end, value


def varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at`, and where the next thing begins."""
    if at < len(message) and (first := message[at]) < 0x80:  # nearly all are of one byte
        return first, at + 1
    value = shift = 0
    while at < len(message) and shift < 64:
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("an integer has no end")
