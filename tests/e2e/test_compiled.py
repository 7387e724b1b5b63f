"""The compiled step, in processes of their own: it takes the eager path, and a resumed run its own."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from triptych.learn.train.curves import flat

RECIPES = {
    "vae": """[data]
name = "digits"
[model]
family = "vae"
hidden = [16]
latent_dim = 2
kl_warmup_steps = 8
[train]
grad_clip = 50.0
weight_decay = 0.01
""",
    "wgan-gp": """[data]
name = "digits"
[model]
family = "wgan-gp"
generator_hidden = [16]
critic_hidden = [16]
critic_updates = 2
[train]
""",
    "vq-vae": """[data]
name = "digits"
[model]
family = "vq-vae"
channels = [8]
codes = 16
code_dim = 4
prior_layers = 1
prior_width = 16
prior_dropout = 0.2
[train]
""",
    "transformer": """[data]
name = "text"
path = "text.txt"
block_size = 8
[model]
family = "transformer"
layers = 1
heads = 2
width = 16
dropout = 0.2
[train]
schedule = "cosine"
accumulate = 2
""",
}
SET = (
    "train.batch_size=16",
    "train.threads=1",
    "train.validate_every_steps=10",
    "log.every_steps=10",
    "log.samples=0",
    "log.report=false",
)


def train(folder: Path, out: str, *changes: str, family: str, steps: int = 60) -> subprocess.Popen[str]:
    (folder / "text.txt").write_text("to be or not to be, that is the question\n" * 60)
    (folder / f"{family}.toml").write_text(RECIPES[family])
    settings = [part for change in (*SET, f"train.max_steps={steps}", *changes) for part in ("--set", change)]
    command = [sys.executable, "-m", "triptych", "train", f"{family}.toml", "--out", out, "--resume", "auto"]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    return subprocess.Popen(
        [*command, *settings], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


def to_the_end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=280)
    assert process.returncode == 0


def rows(run: Path) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until `path` is there; the process that makes it must not end before."""
    while not path.exists():
        with suppress(subprocess.TimeoutExpired):
            assert process.wait(timeout=0.05) is None


def check_path(folder: Path) -> None:
    """The runs `eager` and `compiled` logged the same numbers, up to rounding."""
    eager, compiled = rows(folder / "eager"), rows(folder / "compiled")
    assert len(eager) == len(compiled) > 6
    for one, other in zip(eager, compiled, strict=True):
        assert flat(other) == pytest.approx(flat(one), rel=2e-3, abs=1e-4)
    summary = json.loads((folder / "compiled" / "run.json").read_text())
    assert summary["compiled"]
    assert summary["compile_s"] > 0


@pytest.mark.timeout(600)
def test_a_compiled_run_takes_the_eager_path_and_killed_and_resumed_ends_byte_equal(tmp_path: Path) -> None:
    to_the_end(train(tmp_path, "eager", "train.compile=false", family="vae"))
    to_the_end(train(tmp_path, "compiled", "train.compile=true", family="vae"))
    check_path(tmp_path)
    killed = train(tmp_path, "killed", "train.compile=true", family="vae")
    wait_for(tmp_path / "killed" / "checkpoints" / "last", killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    to_the_end(train(tmp_path, "killed", "train.compile=true", family="vae"))
    for file in ("model", "optimizer", "rng"):
        compiled, resumed = (
            (tmp_path / run / "checkpoints" / "last" / f"{file}.safetensors").read_bytes()
            for run in ("compiled", "killed")
        )
        assert compiled == resumed, file
    assert rows(tmp_path / "killed") == rows(tmp_path / "compiled")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", ["wgan-gp", "vq-vae", "transformer"])
def test_a_compiled_step_takes_the_eager_path(family: str, tmp_path: Path) -> None:
    to_the_end(train(tmp_path, "eager", "train.compile=false", family=family))
    to_the_end(train(tmp_path, "compiled", "train.compile=true", family=family))
    check_path(tmp_path)
