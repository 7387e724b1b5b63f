"""From errors to HTTP answers: a status, and a body in the shape its route speaks. Never a traceback."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from triptych.errors import (
    BrokerUnavailable,
    ConflictError,
    DeadlineExceeded,
    Draining,
    InputError,
    NotFoundError,
    Overloaded,
    StorageFull,
    SupervisorFailed,
    TriptychError,
)

log = logging.getLogger(__name__)
Headers = list[tuple[bytes, bytes]]

STATUS: dict[type[TriptychError], int] = {
    InputError: 400,
    NotFoundError: 404,
    ConflictError: 409,
    Overloaded: 503,
    Draining: 503,
    SupervisorFailed: 503,
    DeadlineExceeded: 504,
    BrokerUnavailable: 503,
    StorageFull: 507,
}
NAMES = {
    400: "invalid_input",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "request_timeout",
    409: "conflict",
    411: "length_required",
    413: "too_large",
    415: "unsupported_media_type",
    431: "header_too_large",
    500: "internal_error",
    503: "unavailable",
    504: "deadline_exceeded",
    507: "insufficient_storage",
}
RETRY_AFTER_S = 1
MAX_CHARACTERS = 1000  # of each part of an error
CLOSE = (b"connection", b"close")
OPENAI_PATHS = ("/v1/completions", "/v1/images/generations", "/v1/models")
KSERVE_PATHS, OURS_AMONG_THEM = "/v2/", "/v2/workers"


class Refusal(InputError):
    """A request that HTTP itself refuses, before any model: carries its status and headers."""

    def __init__(self, status: int, problem: str, *, headers: Headers | None = None, **details: str) -> None:
        super().__init__(problem, **details)
        self.status, self.headers = status, headers or []


def status_of(error: Exception) -> int:
    """The HTTP status of an error; an unexpected one is 500."""
    if isinstance(error, Refusal):
        return error.status
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def name_of(status: int) -> str:
    """What an error of that status is called."""
    return NAMES.get(status, "error")


def headers_of(error: Exception, status: int) -> Headers:
    """What goes with the status: when to try again, and what the refusal itself carries."""
    retry_s = error.retry_after_s if isinstance(error, Overloaded) else RETRY_AFTER_S
    retry = [(b"retry-after", b"%d" % retry_s)] if status == 503 else []
    return retry + (error.headers if isinstance(error, Refusal) else [])


def describe(error: Exception) -> tuple[str, str, str]:
    """Message, parameter and hint; of an unexpected error only that it happened, the log has the rest."""
    if not isinstance(error, TriptychError):
        log.error("unexpected %s", type(error).__name__, exc_info=error)
        return "internal error", "", "the server's log has the traceback"
    message = f"{error.problem}; valid: {error.valid}" if error.valid else error.problem
    if error.where:
        message = f"{error.where}: {message}"
    return clipped(message), clipped(error.where), clipped(error.remedy)


def clipped(text: str) -> str:
    """The beginning of a text that is long: nobody is sent all of his own request back."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def body_of(error: Exception, status: int, path: str) -> bytes:
    """The error in the shape that the route of `path` speaks."""
    if path in OPENAI_PATHS or (path.startswith("/v1/models/") and path.count("/") == 3):
        return openai_body(error, status)
    is_theirs = path.startswith(KSERVE_PATHS) and path != OURS_AMONG_THEM
    return (kserve_body if is_theirs else native_body)(error, status)


def native_body(error: Exception, status: int) -> bytes:
    """`{"error": {"type", "message", "param", "hint"}}`."""
    message, param, hint = describe(error)
    kind = name_of(status)
    return encode({"error": {"type": kind, "message": message, "param": param or None, "hint": hint or None}})


def openai_body(error: Exception, status: int) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`, as OpenAI's servers and clients have it."""
    message, param, hint = describe(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    text = f"{message}. {hint}" if hint else message
    return encode(
        {"error": {"message": text, "type": kind, "param": param or None, "code": NAMES.get(status)}}
    )


def kserve_body(error: Exception, _status: int) -> bytes:
    """`{"error": message}`, as servers and clients of the V2 protocol have it."""
    message, _, hint = describe(error)
    return encode({"error": f"{message}. {hint}" if hint else message})


def encode(value: Any) -> bytes:
    """JSON bytes."""
    return msgspec.json.encode(value)
