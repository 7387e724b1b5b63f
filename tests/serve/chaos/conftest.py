"""One stage for all experiments of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from triptych.cli.chaos import export_text, export_vae
from triptych.serve.chaos.stage import Stage

# The tests share two cores with each other, a training or two, and whatever CI runs beside them: what takes
# 0.5 s on a quiet machine was seen to take 2 s there. `triptych chaos` asks for the figures as they are.
PATIENCE = 5.0


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Small untrained models, served."""
    folder = tmp_path_factory.mktemp("chaos")
    export_vae(folder / "vae")
    export_text(folder / "text")
    with Stage(
        [folder / "vae", folder / "text"], folder, quick=True, patience=PATIENCE, broker="memory"
    ) as stage:
        yield stage
    assert stage.shared_exit_code == 0
