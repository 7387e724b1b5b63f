"""Every test executes the shapes that the formulas promise: a wrong axis is an error, not a broadcast."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from triptych.serve.chaos.rabbit import RabbitServer, is_installed

install_import_hook("triptych.learn.maths", "beartype.beartype")

# Examples are drawn the same in every run; each test has a timeout already, so single examples need no
# deadline.
settings.register_profile("triptych", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("triptych")


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A running RabbitMQ; skipped where it is not installed, which on CI is a failure."""
    if not is_installed():
        missing = "RabbitMQ is not installed (`make system`)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.close()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On tensors this small a second thread only waits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
