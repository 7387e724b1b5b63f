"""Jobs: `POST /v1/jobs` says 202 once the request is safe; what becomes of it is asked for later."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Any

import msgspec

from triptych.errors import BrokerUnavailable, ConflictError, InputError
from triptych.serve.brokers.broker import Intake
from triptych.serve.brokers.job import Job, Record
from triptych.serve.catalog import Model
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.json_body import parse
from triptych.serve.http.refusal import describe, encode, name_of, status_of
from triptych.serve.http.schemas import CompletionBody, JobBody, RunBody, SampleBody, new_seed
from triptych.serve.jobs.failures import decode_failure
from triptych.serve.jobs.results import StoredResult, forms, write
from triptych.serve.jobs.stored import Kind, StoredJob
from triptych.serve.work import JSON, NPY

MAX_KEY_CHARACTERS = 255
BODIES: dict[Kind, type[msgspec.Struct]] = {
    "sample": SampleBody,
    "run": RunBody,
    "completion": CompletionBody,
}


async def submit(exchange: Exchange) -> None:
    """`POST /v1/jobs`: keep a request safe (202) and answer it later; one `Idempotency-Key` is one job."""
    intake, body = lane(exchange), await exchange.json(JobBody)
    model = exchange.gateway.catalog.known(body.model)
    exchange.about(model.name)
    key = exchange.headers.get(b"idempotency-key", b"").decode("latin-1")
    if len(key) > MAX_KEY_CHARACTERS:
        raise InputError(
            f"has {len(key)} characters", where="Idempotency-Key", valid=f"at most {MAX_KEY_CHARACTERS}"
        )
    stored = as_job(model, body, key, exchange.gateway.settings.limits.json_depth)
    id = await intake.publish(Job(secrets.token_hex(12), stored.encode(), key))
    record = await intake.get(id)
    headers = [*model.headers, (b"location", f"/v1/jobs/{id}".encode())]
    await exchange.answer(202, encode(describe_job(record)), JSON, headers)


async def list_dead(exchange: Exchange) -> None:
    """`GET /v1/jobs`: the dead jobs, the longest dead first, a hundred at most."""
    records = await lane(exchange).dead_letters()
    await exchange.answer(200, encode({"jobs": [describe_job(record) for record in records]}), JSON, [])


async def show(exchange: Exchange, id: str) -> None:
    """`GET /v1/jobs/{id}`: what is known of a job, and where its result is."""
    record = await lane(exchange).get(id)
    await exchange.answer(200, encode(describe_job(record)), JSON, [])


async def cancel(exchange: Exchange, id: str) -> None:
    """`POST /v1/jobs/{id}/cancel`: end a job nobody wants any more; one that has ended stays as it is."""
    record = await lane(exchange).cancel(id)
    await exchange.answer(200, encode(describe_job(record)), JSON, [])


async def requeue(exchange: Exchange, id: str) -> None:
    """`POST /v1/jobs/{id}/requeue`: try a dead job again."""
    record = await lane(exchange).requeue(id)
    await exchange.answer(202, encode(describe_job(record)), JSON, [])


async def result(exchange: Exchange, id: str) -> None:
    """`GET /v1/jobs/{id}/result`: a done job's result; JSON, npy or a picture, by `Accept`."""
    record = await lane(exchange).get(id)
    if record.state != "done":
        raise ConflictError(
            f"job {id} is {record.state}",
            where="result",
            valid="a job that is done",
            remedy="ask again later",
        )
    job = StoredJob.decode(record.body)
    accept, made = exchange.accept(forms(job)), StoredResult.decode(record.result, job)
    origin = [(b"triptych-model", job.model.encode()), (b"triptych-version", made.version.encode())]
    await exchange.answer(200, write(job, record, made, accept), accept, origin)


def lane(exchange: Exchange) -> Intake:
    """Where jobs go in."""
    if exchange.gateway.jobs is None:
        raise BrokerUnavailable("is not open yet", where="jobs")
    return exchange.gateway.jobs


def as_job(model: Model, body: JobBody, key: str, depth: int) -> StoredJob:
    """What is stored: the request that a route will answer, checked as far as its form goes.

    Raises: InputError, NotFoundError for an unknown graph.
    """
    request, output, accept = dict(body.request), "", JSON
    path, seed = f"/v1/models/{model.name}/sample", None
    if body.kind == "run":
        graph = model.graph(str(request.pop("graph", "")))
        path = f"/v1/models/{model.name}/run/{graph.name}"
        if len(graph.outputs) == 1:
            accept, output = NPY, graph.outputs[0].name
    else:
        seed = request["seed"] = request.get("seed") if request.get("seed") is not None else seed_of(key)
        if body.kind == "completion":
            path, request["model"] = "/v1/completions", model.name
            if request.get("stream"):
                raise InputError("a job has no stream", where="request.stream", valid="false")
        elif not model.is_text:
            accept = NPY
    content = encode(request)
    parse(content, BODIES[body.kind], depth)
    return StoredJob(body.kind, model.name, model.version, path, content, accept, seed, output)


def seed_of(key: str) -> int:
    """A seed for a job that names none: the same whenever its idempotency key comes again."""
    if not key:
        return new_seed()
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 11


def describe_job(record: Record) -> dict[str, Any]:
    """A job for its owner."""
    job = StoredJob.decode(record.body)
    described: dict[str, Any] = {
        "id": record.id,
        "model": job.model,
        "kind": job.kind,
        "seed": job.seed,
        "status": record.state,
        "redelivered": max(0, record.deliveries - 1),
        "submitted_at_s": record.submitted_at_s,
        "ended_at_s": record.ended_at_s or None,
    }
    if record.state == "done":
        described["result"] = f"/v1/jobs/{record.id}/result"
    elif record.state == "failed":
        described["error"] = describe_failure(record.result)
    elif record.state == "dead":
        described["error"] = {"type": "dead", "message": record.reason, "param": None, "hint": None}
    return described


def describe_failure(result: bytes) -> dict[str, Any]:
    """Why a job failed, as its route would have said it."""
    error = decode_failure(result)
    message, param, hint = describe(error)
    kind = name_of(status_of(error))
    return {"type": kind, "message": message, "param": param or None, "hint": hint or None}
