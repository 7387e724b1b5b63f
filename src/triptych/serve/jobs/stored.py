"""A job as it is stored: which route answers it, with what body, and in which form the result is kept."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from triptych.errors import StoreDamaged

Kind = Literal["sample", "run", "completion"]


class StoredJob(msgspec.Struct, frozen=True):
    """A request to be answered later.

    Args:
        kind, model: what it asks of whom. version: of the model, when it was accepted.
        path: of the route that answers it. content: the body that route is given; its seed is set.
        accept: media type the result is kept in. output: name of the graph's one output, kept as npy.
    """

    kind: Kind
    model: str
    version: str
    path: str
    content: bytes
    accept: str
    seed: int | None = None
    output: str = ""

    def encode(self) -> bytes:
        """For the broker."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, body: bytes) -> StoredJob:
        """From the broker."""
        try:
            return msgspec.msgpack.decode(body, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise StoreDamaged(f"a job cannot be read ({error})", where="jobs") from error


def same_request(one: bytes, other: bytes) -> bool:
    """Whether two stored jobs ask for the same; what the model of their time added does not count."""
    return one == other or asked(StoredJob.decode(one)) == asked(StoredJob.decode(other))


def asked(job: StoredJob) -> tuple[str, str, str, bytes]:
    """What the client wants: of whom, from which route, by what body."""
    return job.kind, job.model, job.path, job.content


def settle_completion(body: bytes, id: str, created_at_s: int = 0) -> bytes:
    """A completion whose id and time are its job's: the same job run twice makes the same bytes."""
    completion: dict[str, Any] = msgspec.json.decode(body)
    return msgspec.json.encode({**completion, "id": f"cmpl-{id}", "created": created_at_s})
