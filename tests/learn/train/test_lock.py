"""A run folder belongs to one training process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from triptych.errors import ConfigError
from triptych.learn.train.lock import FolderLock

HOLD = """
import sys
from pathlib import Path
from triptych.learn.train.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(fit, tmp_path: Path) -> None:
    calm = fit("calm", max_steps=10)
    fit(max_steps=5)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=r"another process is training in this folder\. Wait until"):
            fit(max_steps=10, resume="auto")
        other.kill()
        other.wait()
    resumed = fit(max_steps=10, resume="auto")
    assert resumed.summary["steps"] == 10
    weights = "checkpoints/last/model.safetensors"
    assert (resumed.path / weights).read_bytes() == (calm.path / weights).read_bytes()


def test_a_finished_run_lets_go_of_its_folder(fit, tmp_path: Path) -> None:
    fit(max_steps=5)
    FolderLock(tmp_path / "run").close()
