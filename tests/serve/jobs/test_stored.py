"""Jobs as they are stored: what makes two of them one."""

from __future__ import annotations

import pytest

from triptych.serve.jobs.stored import StoredJob, same_request

JOB = StoredJob("run", "vae", "one", "/v1/models/vae/run/decode", b"{}", "application/x-npy", 7, "x")


def test_what_the_model_of_the_time_added_makes_no_other_job() -> None:
    later = StoredJob(JOB.kind, JOB.model, "two", JOB.path, JOB.content, "application/json", JOB.seed)
    assert same_request(JOB.encode(), later.encode())


@pytest.mark.parametrize("field", ["kind", "model", "path", "content"])
def test_what_the_client_asked_does(field: str) -> None:
    fields = {name: getattr(JOB, name) for name in JOB.__struct_fields__}
    fields[field] = {"kind": "sample", "content": b'{"n":1}'}.get(field, "other")
    assert not same_request(JOB.encode(), StoredJob(**fields).encode())
