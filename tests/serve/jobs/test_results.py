"""Results as they are kept."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import pytest

from triptych.serve.brokers.job import Record
from triptych.serve.jobs.results import StoredResult, write
from triptych.serve.jobs.stored import StoredJob
from triptych.serve.work import JSON, NPY

JOB = StoredJob("sample", "vae", "accepted", "/v1/models/vae/sample", b"{}", NPY, 7)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_result_says_which_version_gave_it() -> None:
    made = StoredResult("answered", npy(np.zeros((1, 2), np.float32)))
    kept = StoredResult.decode(made.encode(), JOB)
    assert kept == made
    written = msgspec.json.decode(write(JOB, Record("id", "done", JOB.encode()), kept, JSON))
    assert (written["version"], written["shape"]) == ("answered", [1, 2])


@pytest.mark.parametrize("content", [npy(np.zeros(3)), b'{"version": "x", "content": "y"}', b"[1]", b""])
def test_a_result_kept_by_an_earlier_server_is_read_as_its_jobs(content: bytes) -> None:
    assert StoredResult.decode(content, JOB) == StoredResult("accepted", content)
