"""The messages of the V2 protocol over gRPC (package `inference`), those of them that are spoken here.

Their classes are made from the table below when this is imported: no generated file, which would ask for a
version of protobuf, and a pool of their own, which does not clash with a client's in the same process. Names
and numbers are public: KServe's `grpc_predict_v2.proto`, and Triton's `grpc_service.proto` for the repository
and for parameters that are floats. Messages that those nest in others stand beside them: on the wire it is
the same.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
CHOICE = "parameter_choice"  # which field of an `InferParameter` is set
MESSAGES = {  # fields have the numbers 1, 2, 3, ... in their order; a map is one from strings
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name; string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name; string version; repeated string extensions",
    "ModelMetadataRequest": "string name; string version",
    "ModelMetadataResponse": "string name; repeated string versions; string platform;"
    "repeated TensorMetadata inputs; repeated TensorMetadata outputs",
    "TensorMetadata": "string name; string datatype; repeated int64 shape",
    "ModelInferRequest": "string model_name; string model_version; string id;"
    "map InferParameter parameters; repeated InferInputTensor inputs;"
    "repeated InferRequestedOutputTensor outputs; repeated bytes raw_input_contents",
    "InferInputTensor": "string name; string datatype; repeated int64 shape;"
    "map InferParameter parameters; InferTensorContents contents",
    "InferRequestedOutputTensor": "string name; map InferParameter parameters",
    "InferParameter": "bool bool_param; int64 int64_param; string string_param; double double_param;"
    "uint64 uint64_param",
    "InferTensorContents": "repeated bool bool_contents; repeated int32 int_contents;"
    "repeated int64 int64_contents; repeated uint32 uint_contents; repeated uint64 uint64_contents;"
    "repeated float fp32_contents; repeated double fp64_contents; repeated bytes bytes_contents",
    "ModelInferResponse": "string model_name; string model_version; string id;"
    "map InferParameter parameters; repeated InferOutputTensor outputs; repeated bytes raw_output_contents",
    "InferOutputTensor": "string name; string datatype; repeated int64 shape",
    "RepositoryIndexRequest": "string repository_name; bool ready",
    "RepositoryIndexResponse": "repeated ModelIndex models",
    "ModelIndex": "string name; string version; string state; string reason",
    "RepositoryModelLoadRequest": "string repository_name; string model_name",
    "RepositoryModelLoadResponse": "",
}


def make_classes() -> dict[str, Any]:
    """The class of each message in the table."""
    file = FileDescriptorProto(name="triptych/inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "InferParameter":
            message.oneof_decl.add(name=CHOICE)
        for number, text in enumerate(filter(None, fields.split(";")), 1):
            add_field(message, number, *text.split())
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in MESSAGES}


def add_field(message: DescriptorProto, number: int, *text: str) -> None:
    """A field of a message, from its words in the table."""
    *label, kind, name = text
    field = message.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if label:
        field.label = FieldDescriptorProto.LABEL_REPEATED
    if message.oneof_decl:
        field.oneof_index = 0
    if label == ["map"]:
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        add_field(entry, 1, "string", "key")
        add_field(entry, 2, kind, "value")
        kind = f"{message.name}.{entry.name}"
    if kind.islower():
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


CLASSES = make_classes()
