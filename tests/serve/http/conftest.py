"""Every test of connections runs on asyncio's loop and on uvloop's."""

import pytest


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param == "uvloop"}
