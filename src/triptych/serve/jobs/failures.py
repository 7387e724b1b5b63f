"""Why a job failed, as bytes."""

from __future__ import annotations

import msgspec

from triptych.errors import InputError, ServeError
from triptych.serve.supervise.failure import Failure


def encode_failure(error: Exception) -> bytes:
    """For the broker."""
    failure = Failure.of(error)
    if isinstance(error, InputError):  # also what only HTTP knows
        failure = msgspec.structs.replace(failure, type="InputError")
    return msgspec.msgpack.encode(failure)


def decode_failure(result: bytes) -> Exception:
    """The error of a failed job."""
    try:
        return msgspec.msgpack.decode(result, type=Failure).to_error()
    except (msgspec.DecodeError, msgspec.ValidationError):
        return ServeError("failed for a reason that cannot be read")
