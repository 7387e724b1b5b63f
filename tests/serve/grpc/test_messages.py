"""The messages are the public protocol's: those of Triton's client, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2

from triptych.serve.grpc.messages import CLASSES, MESSAGES

NESTED = {  # what Triton nests in another message
    "TensorMetadata": "ModelMetadataResponse",
    "InferInputTensor": "ModelInferRequest",
    "InferRequestedOutputTensor": "ModelInferRequest",
    "InferOutputTensor": "ModelInferResponse",
    "ModelIndex": "RepositoryIndexResponse",
}


def theirs(name: str) -> Any:
    outer = getattr(service_pb2, NESTED[name]) if name in NESTED else service_pb2
    return getattr(outer, name)


def fields(kind: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in kind.DESCRIPTOR.fields
    }


@pytest.mark.parametrize("name", MESSAGES)
def test_a_field_has_the_number_and_type_that_it_has_for_triton(name: str) -> None:
    ours, public = fields(CLASSES[name]), fields(theirs(name))
    assert ours.items() <= public.items()


def test_what_triton_s_client_sends_is_read_and_what_is_answered_it_reads() -> None:
    sent = service_pb2.ModelInferRequest(model_name="vae", id="7", raw_input_contents=[b"1234"])
    sent.inputs.add(name="z", datatype="FP32", shape=[1, 1]).parameters["a"].bool_param = False
    sent.parameters["seed"].uint64_param = 2**64 - 1
    read: Message = CLASSES["ModelInferRequest"].FromString(sent.SerializeToString())
    assert service_pb2.ModelInferRequest.FromString(read.SerializeToString()) == sent
    answer = CLASSES["ModelInferResponse"](model_name="vae", raw_output_contents=[b"1234"])
    answer.outputs.add(name="x", datatype="FP32", shape=[1, -1])
    got = service_pb2.ModelInferResponse.FromString(answer.SerializeToString())
    assert (got.outputs[0].name, list(got.outputs[0].shape)) == ("x", [1, -1])
    assert got.raw_output_contents == [b"1234"]
