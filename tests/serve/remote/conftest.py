"""Tests of the remote lane run on uvloop, as its programs do."""

import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}
