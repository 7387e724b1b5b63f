"""Requests and answers keep their meaning on the way to the form they have over HTTP, and back."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from triptych.errors import InputError
from triptych.serve.grpc import tensors
from triptych.serve.grpc.messages import CLASSES
from triptych.serve.http.json_body import parse
from triptych.serve.kserve import BYTES, DATATYPES, InferBody, as_inference, elements
from triptych.serve.tensors import read_tensor, write_tensors

TYPED = {datatype: np.dtype(name) for name, datatype in DATATYPES.items() if datatype in tensors.CONTENTS}


def infer(**fields: Any) -> Any:
    return CLASSES["ModelInferRequest"](model_name="vae", **fields)


def values(datatype: str, *given: Any, field: str = "") -> Any:
    part = CLASSES["InferInputTensor"](name="z", datatype=datatype, shape=[len(given)])
    getattr(part.contents, field or tensors.CONTENTS[datatype][0]).extend(given)
    return part


def as_http(message: Any) -> tuple[InferBody, bytes]:
    head, binary = tensors.request(message)
    return parse(head, InferBody, 32), binary


@given(st.data(), st.sampled_from(sorted(TYPED)))
def test_values_of_any_datatype_reach_the_worker_bit_for_bit_typed_or_raw(data: Any, datatype: str) -> None:
    dtype = TYPED[datatype]
    wanted = data.draw(
        arrays.arrays(dtype, st.integers(0, 9), elements=arrays.from_dtype(dtype, allow_nan=False))
    )
    raw = CLASSES["InferInputTensor"](name="z", datatype=datatype, shape=wanted.shape)
    little = wanted.astype(dtype.newbyteorder("<")).tobytes()
    typed = infer(inputs=[values(datatype, *wanted.tolist())])
    for message in (typed, infer(inputs=[raw], raw_input_contents=[little])):
        (part,) = as_inference(*as_http(message), ["x"]).inputs
        read = read_tensor(part)
        assert read.dtype == dtype
        assert read.tobytes() == wanted.tobytes()


@given(st.lists(st.binary(max_size=5), max_size=4))
def test_texts_reach_the_worker(given: list[bytes]) -> None:
    (part,) = as_inference(*as_http(infer(inputs=[values(BYTES, *given)])), ["x"]).inputs
    assert elements(part.values) == given


def test_values_that_the_datatype_cannot_hold_are_refused() -> None:
    for datatype, value in (("INT8", 128), ("UINT16", 65536), ("INT16", -32769)):
        with pytest.raises(InputError, match=f"no {datatype}"):
            tensors.request(infer(inputs=[values(datatype, value)]))


def test_contents_of_another_type_and_of_none_that_has_them_are_refused() -> None:
    with pytest.raises(InputError, match="valid: int64_contents"):
        tensors.request(infer(inputs=[values("INT64", 1, field="int_contents")]))
    with pytest.raises(InputError, match="valid: raw_input_contents"):
        tensors.request(infer(inputs=[values("FP16", 1.0, field="fp32_contents")]))


def test_parameters_are_plain_values_and_nested_ones_are_json() -> None:
    message = infer()
    for name, field, value in (
        ("n", "int64_param", 4),
        ("seed", "uint64_param", 2**63),
        ("temperature", "double_param", 0.1),
        ("echo", "bool_param", False),
        ("stop", "string_param", '{"a"'),
        ("condition", "string_param", '{"label": [1, 2]}'),
    ):
        setattr(message.parameters[name], field, value)
    body, _ = as_http(message)
    assert body.parameters == {
        "n": 4,
        "seed": 2**63,
        "temperature": 0.1,
        "echo": False,
        "stop": '{"a"',
        "condition": {"label": [1, 2]},
        "binary_data_output": True,
    }


@pytest.mark.parametrize(
    ("field", "value"), [("double_param", float("nan")), ("double_param", float("inf")), (None, None)]
)
def test_a_parameter_that_json_has_not_is_refused(field: str | None, value: Any) -> None:
    message = infer()
    made = message.parameters["temperature"]
    if field is not None:
        setattr(made, field, value)
    with pytest.raises(InputError, match=r"parameters\.temperature"):
        tensors.request(message)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_nested_parameter_that_is_no_json_is_refused(text: str) -> None:
    message = infer()
    message.parameters["condition"].string_param = text
    with pytest.raises(InputError, match=r"parameters\.condition"):
        tensors.request(message)


def test_outputs_are_raw_whatever_the_client_says() -> None:
    message = infer()
    message.parameters["binary_data_output"].bool_param = False
    asked = message.outputs.add(name="x")
    asked.parameters["binary_data"].bool_param = False
    assert as_inference(*as_http(message), ["x"]).is_binary == [True]
    del message.outputs[:]
    assert as_inference(*as_http(message), ["x", "y"]).is_binary == [True, True]


def test_shared_memory_and_classification_are_refused_as_over_http() -> None:
    part = CLASSES["InferInputTensor"](name="z", datatype="FP32", shape=[4])
    part.parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(InputError, match="shared_memory_region"):
        as_inference(*as_http(infer(inputs=[part])), ["x"])
    message = infer()
    message.outputs.add(name="x").parameters["classification"].int64_param = 2
    with pytest.raises(InputError, match="classification"):
        as_inference(*as_http(message), ["x"])


def test_an_answer_keeps_the_bytes_of_each_output_and_its_parameters() -> None:
    made = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array([True, False])}
    inference = as_inference(*as_http(infer(id="7")), ["x", "y"])
    packed = write_tensors(inference, made, model="vae", version="1", more={"seed": 3})
    length = int.from_bytes(packed[:4], "little")
    answer = tensors.response(msgspec.json.decode(packed[4 : 4 + length]), packed[4 + length :])
    assert [(part.name, part.datatype, list(part.shape)) for part in answer.outputs] == [
        ("x", "FP32", [2, 3]),
        ("y", "BOOL", [2]),
    ]
    assert list(answer.raw_output_contents) == [array.tobytes() for array in made.values()]
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "vae", "1")
    assert answer.parameters["seed"].int64_param == 3
