"""Two processes under `torchrun` train as one alone does, and either goes on where the other stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.learn.train.curves import flat

RECIPES = {
    "vae": """[data]
name = "digits"
binarize = "dynamic"
[model]
family = "vae"
hidden = [16]
latent_dim = 2
[train]
batch_size = 16
ema_decay = 0.9
accumulate = 2
""",
    "wgan-gp": """[data]
name = "digits"
[model]
family = "wgan-gp"
generator_hidden = [16]
critic_hidden = [16]
[train]
batch_size = 16
[train.turns.critic]
learning_rate = 2e-4
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
batch_size = 16
accumulate = 2
""",
    "transformer": """[data]
name = "text"
path = "{folder}/text.txt"
block_size = 8
[model]
family = "transformer"
layers = 1
heads = 2
width = 16
dropout = 0.2
[train]
batch_size = 16
grad_clip = 0.5
""",
}
SET = ("train.validate_every_steps=5", "log.every_steps=5", "log.samples=0", "log.report=false")
# Steps and processes, run after run in one folder.
PLANS = {
    "vae": [(10, 1), (20, 2)],
    "wgan-gp": [(10, 2), (20, 1)],
    "vq-vae": [(10, 1), (20, 2)],
    "transformer": [(10, 1), (20, 2)],
}


def train(folder: Path, out: str, steps: int, processes: int, *more: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m"]
    if processes > 1:
        launcher += ["torch.distributed.run", "--nproc-per-node", str(processes), "--standalone", "-m"]
    changes = [part for change in (*SET, f"train.max_steps={steps}") for part in ("--set", change)]
    command = ["triptych", "train", "recipe.toml", *changes, "--out", out, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        launcher + command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110
    )


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", RECIPES)
def test_the_number_of_processes_leaves_the_curve_alone_even_across_a_resume(
    family: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question\n" * 60)
    (tmp_path / "recipe.toml").write_text(RECIPES[family].format(folder=tmp_path))
    for out, plan in {"calm": [(20, 1)], "mixed": PLANS[family]}.items():
        for steps, processes in plan:
            done = train(tmp_path, out, steps, processes, "--resume", "auto")
            assert done.returncode == 0, done.stderr[-2000:]
            assert done.stdout.count(f"{out}: {steps} steps") == 1
    calm, mixed = rows(tmp_path / "calm"), rows(tmp_path / "mixed")
    assert len(calm) == len(mixed) == 9
    for one, other in zip(calm, mixed, strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        assert flat(other) == pytest.approx(flat(one), rel=2e-4, abs=1e-5)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPES["vae"])
    done = train(tmp_path, "run", 5, 2, "--set", "train.batch_size=15")
    assert done.returncode != 0
    assert "train.batch_size: batches of 15 cannot be shared by 2 processes" in done.stderr


SCRIPT = """
import os, torch
torch.manual_seed(int(os.environ["RANK"]))
from triptych.learn import VAE, Trainer, datasets
model = VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(8,), latent_dim=2))
log = {"progress": False, "report": False, "samples": 0}
Trainer(max_steps=4, batch_size=16, out="run", log=log).fit(model, datasets.digits())
with open("weights-" + os.environ["RANK"], "w") as file:
    file.write(str(next(model.parameters()).tolist()))
"""


def test_weights_that_began_apart_are_those_of_the_leader(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "train.py"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = ((tmp_path / f"weights-{rank}").read_text() for rank in range(2))
    assert one == other
