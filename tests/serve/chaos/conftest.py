"""One stage for all experiments of a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from triptych.cli.chaos import export_text, export_vae
from triptych.serve.chaos.stage import Stage

# The tests share two cores with each other, a training or two, and whatever CI runs beside them: what takes
# 0.5 s on a quiet machine was seen to take 2 s there. `triptych chaos` asks for the figures as they are.
PATIENCE = 5.0


@pytest.fixture(scope="session")
def stage_of(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Stage]]:
    """The stage of a broker: small untrained models, served."""
    bundles = tmp_path_factory.mktemp("bundles")
    export_vae(bundles / "vae")
    export_text(bundles / "text")
    stages: dict[str, Stage] = {}

    def stage_of(broker: str) -> Stage:
        if broker not in stages:
            folder = tmp_path_factory.mktemp(broker)
            stage = Stage(
                [bundles / "vae", bundles / "text"],
                folder,
                quick=True,
                patience=PATIENCE,
                broker=broker,
                rabbit=request.getfixturevalue("rabbitmq") if broker in ("amqp", "machines") else None,
            )
            stages[broker] = ended.enter_context(stage)
        return stages[broker]

    with ExitStack() as ended:
        yield stage_of
    assert [stage.shared_exit_code for stage in stages.values()] == [0] * len(stages)
