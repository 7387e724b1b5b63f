"""Requests and answers of `ModelInfer`, in the form they have over HTTP: JSON, and raw values behind it."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import msgspec

from triptych.errors import InputError
from triptych.serve.grpc.messages import CHOICE, CLASSES
from triptych.serve.kserve import BYTES, joined

NESTED = ("condition", "logit_bias")  # parameters that are JSON, for which the protocol has a text at most
CONTENTS = {  # datatype -> its field of `InferTensorContents`, its code in `struct`
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "b"),
    "INT16": ("int_contents", "h"),
    "INT32": ("int_contents", "i"),
    "INT64": ("int64_contents", "q"),
    "UINT8": ("uint_contents", "B"),
    "UINT16": ("uint_contents", "H"),
    "UINT32": ("uint_contents", "I"),
    "UINT64": ("uint64_contents", "Q"),
    "FP32": ("fp32_contents", "f"),
    "FP64": ("fp64_contents", "d"),
    BYTES: ("bytes_contents", ""),
}
PARAMETERS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


def request(message: Any) -> tuple[bytes, bytes]:
    """The JSON of a `ModelInferRequest`, and the raw values of its inputs; outputs are asked for raw.

    Raises: InputError for values that contradict their input, and parameters that are none.
    """
    values = raw_values(message)
    wanted = parameters(message.parameters, "")
    for name in NESTED:
        if isinstance(text := wanted.get(name), str):
            wanted[name] = nested(name, text)
    body = {
        "id": message.id,
        "parameters": {**wanted, "binary_data_output": True},
        "inputs": [
            {
                "name": part.name,
                "datatype": part.datatype,
                "shape": list(part.shape),
                "parameters": {**parameters(part.parameters, part.name), "binary_data_size": len(value)},
            }
            for part, value in zip(message.inputs, values, strict=True)
        ],
        "outputs": [
            {"name": part.name, "parameters": {**parameters(part.parameters, part.name), "binary_data": True}}
            for part in message.outputs
        ],
    }
    return msgspec.json.encode(body), b"".join(values)


def raw_values(message: Any) -> list[bytes]:
    """The values of each input, little endian: all are raw, or all have `contents`."""
    raw, inputs = message.raw_input_contents, message.inputs
    if not raw:
        return [packed_contents(part) for part in inputs]
    if len(raw) != len(inputs):
        raise InputError(f"are {len(raw)}", where="raw_input_contents", valid=f"{len(inputs)}, one per input")
    for part in inputs:
        if part.HasField("contents"):
            raise InputError("does not go with raw_input_contents", where=f"{part.name}.contents")
    return list(raw)


def packed_contents(part: Any) -> bytes:
    """The values of `contents`; whether they fill the shape is the worker's to judge, as is the datatype."""
    given = [field.name for field, _ in part.contents.ListFields()]
    if not given:
        return b""
    field, code = CONTENTS.get(part.datatype, ("raw_input_contents", ""))
    if given != [field]:
        raise InputError(
            f"got {', '.join(given)} for {part.datatype}", where=f"{part.name}.contents", valid=field
        )
    values = getattr(part.contents, field)
    if part.datatype == BYTES:
        return joined(values)
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error as error:
        raise InputError(f"holds what is no {part.datatype}", where=part.name) from error


def parameters(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Parameters as plain values."""
    found: dict[str, Any] = {}
    for name, parameter in given.items():
        choice = parameter.WhichOneof(CHOICE)
        value = None if choice is None else getattr(parameter, choice)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            place = f"{where}.parameters.{name}" if where else f"parameters.{name}"
            raise InputError(f"got {value}", where=place, valid="true, false, a text or a finite number")
        found[name] = value
    return found


def nested(name: str, text: str) -> Any:
    """The JSON in a parameter.

    >>> nested("condition", '{"label": 3}')
    {'label': 3}
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", where=f"parameters.{name}") from error


def response(head: Mapping[str, Any], values: bytes) -> Any:
    """An answer's JSON and raw values as a `ModelInferResponse`."""
    raw, start = [], 0
    for output in head["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        raw.append(values[start:end])
        start = end
    made = CLASSES["ModelInferResponse"](
        model_name=head["model_name"],
        model_version=head["model_version"],
        id=head.get("id", ""),
        outputs=[
            CLASSES["InferOutputTensor"](
                name=output["name"], datatype=output["datatype"], shape=output["shape"]
            )
            for output in head["outputs"]
        ],
        raw_output_contents=raw,
    )
    for name, value in head.get("parameters", {}).items():
        setattr(made.parameters[name], PARAMETERS[type(value)], value)
    return made
