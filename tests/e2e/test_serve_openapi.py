"""The description of the interface, held against what the server does with what it allows and forbids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A body may be right by its schema and wrong for the model: a label for a model without any, say.
BY_THE_MODEL = "positive_data_acceptance"


def test_no_request_that_the_description_inspires_gets_an_answer_it_does_not_know(
    served, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json"]
    command += ["--checks", "all", "--exclude-checks", BY_THE_MODEL, "--phases", "coverage,fuzzing,stateful"]
    command += ["--max-examples", "8", "--seed", "1", "--suppress-health-check", "all", "--no-color"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert served.client.get("/readyz").status_code == 200
