"""A job's result in the form a client takes: kept as npy where it is one array, written as asked for."""

from __future__ import annotations

from triptych.serve.brokers.job import Record
from triptych.serve.jobs.stored import StoredJob, settle_completion
from triptych.serve.work import JSON, NPY, PNG


def forms(job: StoredJob) -> tuple[str, ...]:
    """The media types its result can have."""
    if job.accept != NPY:
        return (JSON,)
    return (JSON, NPY, PNG) if job.kind == "sample" else (JSON, NPY)


def write(job: StoredJob, record: Record, accept: str) -> bytes:
    """The result as `accept`; JSON is byte for byte what the route itself would have answered."""
    if job.kind == "completion":
        return settle_completion(record.result, record.id, int(record.submitted_at_s))
    if accept == job.accept:
        return record.result
    from triptych.bundle import pictures  # numpy: only once somebody asks for another form
    from triptych.serve.bodies import as_json, from_npy

    array = from_npy(record.result)
    if accept == PNG:
        return pictures.png(array)
    head = {"model": job.model, "version": job.version}
    if job.kind == "sample":
        return as_json({**head, "seed": job.seed, "shape": array.shape, "samples": array})
    outputs = {job.output: {"shape": array.shape, "values": array}}
    return as_json({**head, "graph": job.path.rpartition("/")[2], "outputs": outputs})
