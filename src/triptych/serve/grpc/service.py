"""The calls there are, each with the route that does the same over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from triptych.serve.grpc import tensors
from triptych.serve.grpc.call import Answer, Call
from triptych.serve.grpc.door import Door
from triptych.serve.grpc.messages import CLASSES, SERVICE

Handle = Callable[[bytes, Any], Awaitable[bytes]]

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,  # as the library itself says of a message that is too large
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def code_of(status: int) -> grpc.StatusCode:
    """The code that says what a status of HTTP says; `INTERNAL` for what there is none for."""
    return CODES.get(status, grpc.StatusCode.INTERNAL)


class Method(NamedTuple):
    """A call as a request over HTTP: `path` is made from its message."""

    verb: str
    path: Callable[[Any], str]


def model_path(name: str, version: str = "", then: str = "") -> str:
    """The path of a model; a slash in a name does not make it the path of something else."""
    path = f"/v2/models/{one_part(name)}"
    return (f"{path}/versions/{one_part(version)}" if version else path) + then


def one_part(name: str) -> str:
    """A name that stays one part of a path.

    >>> one_part("vae/ready")
    'vae%2Fready'
    """
    return name.replace("/", "%2F")


METHODS = {
    "ServerLive": Method("GET", lambda _: "/v2/health/live"),
    "ServerReady": Method("GET", lambda _: "/v2/health/ready"),
    "ModelReady": Method("GET", lambda asked: model_path(asked.name, asked.version, "/ready")),
    "ServerMetadata": Method("GET", lambda _: "/v2"),
    "ModelMetadata": Method("GET", lambda asked: model_path(asked.name, asked.version)),
    "ModelInfer": Method("POST", lambda asked: model_path(asked.model_name, asked.model_version, "/infer")),
    "RepositoryIndex": Method("POST", lambda _: "/v2/repository/index"),
    "RepositoryModelLoad": Method(
        "POST", lambda asked: f"/v2/repository/models/{one_part(asked.model_name)}/load"
    ),
}


def handlers(door: Door) -> Any:
    """What the library calls; to every other call it answers `UNIMPLEMENTED` by itself."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(partial(handle, door, name, method))
        for name, method in METHODS.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


async def handle(door: Door, name: str, method: Method, message: bytes, context: Any) -> bytes:
    """Answer one call, or end it with the code and words of what went wrong."""
    kind = CLASSES[f"{name}Request"]
    try:
        asked = kind.FromString(message)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {name}Request")
    content = partial(tensors.request, asked)
    call = Call(door.app.gateway, method.verb, method.path(asked), message, content, context)
    answer = await call.answer_of(door.respond)
    if answer.error:
        await context.abort(code_of(answer.status), answer.error, tuple(answer.metadata))
    context.set_trailing_metadata(tuple(answer.metadata))
    return as_message(name, answer)


def as_message(name: str, answer: Answer) -> bytes:
    """The answer of a route as the response of its call; fields that it has not are left out."""
    if name == "ModelInfer":
        made = tensors.response(answer.body, answer.values)
    else:
        body = {"models": answer.body} if isinstance(answer.body, list) else answer.body
        made = ParseDict(body, CLASSES[f"{name}Response"](), ignore_unknown_fields=True)
    encoded: bytes = made.SerializeToString()
    return encoded
