"""Every test executes the shapes that the formulas promise: a wrong axis is an error, not a broadcast."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from triptych.bundle import writer
from triptych.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    GraphRecord,
    LatentSampler,
    Manifest,
    Parity,
    TensorSpec,
)
from triptych.serve.catalog import Model
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


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Model]:
    """Models of which there is only the manifest."""

    def make_model(name: str = "by-hand", version: str = "0123456789ab") -> Model:
        z, x = TensorSpec(name="z", shape=("batch", 3)), TensorSpec(name="x", shape=("batch", 4))
        graph = GraphRecord(
            name="decode",
            file="decode.onnx",
            inputs=(z,),
            outputs=(x,),
            operator_sets={"ai.onnx": 20},
            engines=("onnxruntime",),
            row_buckets=(4, 8),
            parity=Parity(max_abs_error=0.0, max_ulp_error=0.0, tolerance=1e-6, examples=1),
        )
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            family="vae",
            version=version,
            config={},
            sample=TensorSpec(name="x", shape=(4,)),
            sampler=LatentSampler(graph="decode", input="z", output="x", latent_shape=(3,)),
            graphs=(graph,),
            files={},
            training={},
            created_with={"triptych": "0"},
        )
        folder = tmp_path / f"{name}-{version}"
        folder.mkdir(exist_ok=True)
        (folder / MANIFEST).write_bytes(writer.serialise(manifest))
        return Model(folder, manifest, 0)

    return make_model
