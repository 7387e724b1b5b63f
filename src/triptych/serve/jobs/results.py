"""A job's result in the form a client takes: kept as npy where it is one array, written as asked for."""

from __future__ import annotations

import msgspec

from triptych.serve.brokers.job import Record
from triptych.serve.jobs.stored import StoredJob, settle_completion
from triptych.serve.work import JSON, NPY, PNG


class StoredResult(msgspec.Struct, frozen=True):
    """A result as it is kept.

    Args:
        version: of the model that gave it; the job may have been accepted by another.
        content: the answer of the job's route.
    """

    version: str
    content: bytes

    def encode(self) -> bytes:
        """For the broker."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, result: bytes, job: StoredJob) -> StoredResult:
        """From the broker. Earlier servers kept the content alone: npy or JSON, which never reads as this."""
        try:
            return msgspec.msgpack.decode(result, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return cls(job.version, result)


def forms(job: StoredJob) -> tuple[str, ...]:
    """The media types its result can have."""
    if job.accept != NPY:
        return (JSON,)
    return (JSON, NPY, PNG) if job.kind == "sample" else (JSON, NPY)


def write(job: StoredJob, record: Record, result: StoredResult, accept: str) -> bytes:
    """The result as `accept`; JSON is byte for byte what the route itself would have answered."""
    if job.kind == "completion":
        return settle_completion(result.content, record.id, int(record.submitted_at_s))
    if accept == job.accept:
        return result.content
    from triptych.bundle import pictures  # numpy: only once somebody asks for another form
    from triptych.serve.bodies import as_json, from_npy

    array = from_npy(result.content)
    if accept == PNG:
        return pictures.png(array)
    head = {"model": job.model, "version": result.version}
    if job.kind == "sample":
        return as_json({**head, "seed": job.seed, "shape": array.shape, "samples": array})
    outputs = {job.output: {"shape": array.shape, "values": array}}
    return as_json({**head, "graph": job.path.rpartition("/")[2], "outputs": outputs})
