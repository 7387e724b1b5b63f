"""The V2 inference protocol (KServe, Triton): its bodies, and the split between JSON and binary tensors.

A binary request is JSON of as many bytes as the header `Inference-Header-Content-Length` says, and then the
raw values of the inputs that have `binary_data_size`, in their order; answers have the same form.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from triptych.bundle.manifest import TensorSpec
from triptych.errors import InputError

BYTES = "BYTES"
DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}
UNSUPPORTED = ("shared_memory_region", "classification")
Parameters = dict[str, Any]


class InferPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input or output by name; unknown fields are errors."""

    name: str
    parameters: Parameters = {}


class InferInput(InferPart, frozen=True, kw_only=True):
    """One input: its values are in `data`, or in the binary part that `binary_data_size` counts."""

    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**63 - 1)]], Meta(max_length=16)]
    datatype: str
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class InferOutput(InferPart, frozen=True):
    """One output that is asked for; `binary_data` says in which form."""


class InferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v2/models/{model}/infer`. `parameters.graph` names the graph; without it the inputs tell."""

    inputs: list[InferInput] = []
    outputs: list[InferOutput] = []
    id: str = ""
    parameters: Parameters = {}


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """An input as it goes to the worker: its values are raw, or JSON."""

    name: str
    shape: list[int]
    datatype: str
    values: bytes
    is_json: bool


class Inference(msgspec.Struct, frozen=True, array_like=True):
    """A request as it goes to the worker: `is_binary` says in which form each of `outputs` is to come."""

    id: str
    inputs: list[Tensor]
    outputs: list[str]
    is_binary: list[bool]


def as_inference(body: InferBody, binary: bytes, outputs: Sequence[str]) -> Inference:
    """The request for `outputs`, of which it may ask a part.

    Raises: InputError for binary sizes that do not add up, an unknown output, or a parameter that is not
        supported here.
    """
    for part in (*body.inputs, *body.outputs):
        for name in UNSUPPORTED:
            if name in part.parameters:
                raise InputError("is not supported", where=f"{part.name}.parameters.{name}", valid="none")
    asked = body.outputs or [InferOutput(name=name) for name in outputs]
    if len({output.name for output in asked}) < len(asked):
        raise InputError("names one twice", where="outputs", valid="each at most once")
    for output in asked:
        if output.name not in outputs:
            raise InputError(f"there is no `{output.name}`", where="outputs", valid=", ".join(outputs))
    default = body.parameters.get("binary_data_output", False)
    forms = [bool(output.parameters.get("binary_data", default)) for output in asked]
    return Inference(body.id, tensors(body.inputs, binary), [output.name for output in asked], forms)


def tensors(inputs: Sequence[InferInput], binary: bytes) -> list[Tensor]:
    """The inputs with their values; those of the binary part follow each other in the inputs' order."""
    found = []
    start = 0
    for part in inputs:
        size, data = part.parameters.get("binary_data_size"), bytes(part.data)
        if (size is None) == (not data):
            raise InputError("has to have one of `data` and `binary_data_size`", where=part.name)
        if size is None:
            found.append(Tensor(part.name, part.shape, part.datatype, data, True))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - start:
            left = f"at most the {len(binary) - start} bytes that are left"
            raise InputError(f"got {size!r}", where=f"{part.name}.parameters.binary_data_size", valid=left)
        found.append(Tensor(part.name, part.shape, part.datatype, binary[start : start + size], False))
        start += size
    if start != len(binary):
        raise InputError(f"{len(binary) - start} bytes belong to no input", where="body")
    return found


def texts(part: Tensor) -> list[str]:
    """The elements of a BYTES input, as UTF-8.

    Raises: InputError for another datatype, a wrong count, or what is not UTF-8.
    """
    if part.datatype != BYTES:
        raise InputError(f"got {part.datatype}", where=f"{part.name}.datatype", valid=BYTES)
    try:
        if part.is_json:
            found = msgspec.json.decode(part.values, type=list[str])
        else:
            found = [element.decode() for element in elements(part.values)]
    except (msgspec.MsgspecError, UnicodeDecodeError, struct.error) as error:
        raise InputError(f"cannot be read: {error}", where=part.name, valid="UTF-8 texts") from error
    count = 1
    for size in part.shape:
        count *= size
    if count != len(found):
        raise InputError(f"shape {part.shape} is not that of {len(found)} texts", where=part.name)
    return found


def elements(value: bytes) -> list[bytes]:
    """The elements of binary BYTES: each has its length in front, 4 bytes, little endian.

    >>> elements(joined([b"to", b"be"]))
    [b'to', b'be']
    """
    found, at = [], 0
    while at < len(value):
        (size,) = struct.unpack_from("<I", value, at)
        if at + 4 + size > len(value):
            raise struct.error("the last element is cut short")
        found.append(value[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def joined(parts: Sequence[bytes]) -> bytes:
    """Elements as binary BYTES."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def tensor(spec: TensorSpec) -> dict[str, Any]:
    """An input or output as metadata has it: -1 for a size that varies."""
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def pack(head: bytes, binary: bytes) -> bytes:
    """An answer from a worker: the JSON's length in front, for the header that has to name it."""
    return struct.pack("<I", len(head)) + head + binary


def unpack(answer: bytes) -> tuple[int, bytes]:
    """The JSON's length, and the answer's body.

    >>> unpack(pack(b"{}", b"123"))
    (2, b'{}123')
    """
    (length,) = struct.unpack_from("<I", answer)
    return length, answer[4:]
