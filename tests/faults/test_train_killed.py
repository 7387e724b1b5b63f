"""SIGKILL at any moment, then `--resume auto`: the weights end byte-equal to those of a calm run."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RECIPES = {
    "vae": {
        "data": 'name = "idx"\npath = "{folder}"\nbinarize = "dynamic"',
        "model": "hidden = [32]\nlatent_dim = 4",
        "train": "max_steps = 60\nema_decay = 0.9",
    },
    "wgan-gp": {
        "data": 'name = "idx"\npath = "{folder}"',
        "model": "generator_hidden = [16]\ncritic_hidden = [16]",
        "train": "max_steps = 40\nthreads = 1",
    },
    "transformer": {
        "data": 'name = "text"\npath = "{folder}/text.txt"\nblock_size = 16',
        "model": "layers = 1\nheads = 2\nwidth = 16\ndropout = 0.1",
        "train": 'max_steps = 60\naccumulate = 2\nschedule = "warmup_cosine"\nwarmup_steps = 10\n'
        "grad_clip = 1.0\nthreads = 1",
    },
}
KILLS = 3
SCHEDULE = "batch_size = 16\nvalidate_every_steps = 20\ncheckpoint_every_steps = 4\n"
NURSERY = """
import json, os, sys
import torch._dynamo
import triptych.learn.train.recipe, triptych.learn.train.trainer
from triptych.cli.train import train
for line in sys.stdin:
    recipe, out, resume = json.loads(line)
    if (child := os.fork()) == 0:
        os.dup2(2, 1)
        train(recipe, None, __import__("pathlib").Path(out), resume)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Nursery:
    """Has done the slow imports, and forks a training process for each order: the same code, sooner."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def start(self, file: Path, out: Path, resume: str | None) -> int:
        """Begin a run; returns its process id."""
        self.orders.write(json.dumps([str(file), str(out), resume]).encode() + b"\n")
        self.orders.flush()
        return int(self.answers.readline())

    def ended(self) -> int:
        """Wait for the run to end; returns how."""
        return int(self.answers.readline())

    def has_news(self, within_s: float) -> bool:
        """Whether the run ends within this time."""
        return bool(select.select([self.answers], [], [], within_s)[0])

    def close(self) -> None:
        self.orders.close()
        self.process.wait(timeout=60)
        self.answers.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def write_data(folder: Path) -> None:
    draw = random.Random(0)
    (folder / "text.txt").write_text("".join(draw.choices("to be or\nnt,", k=6000)))
    for part, count in (("train", 300), ("t10k", 20)):
        head = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 8, 8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + draw.randbytes(count * 64))
        head = bytes([0, 0, 8, 1]) + struct.pack(">I", count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(draw.choices(range(10), k=count)))


def recipe(family: str, folder: Path) -> Path:
    write_data(folder)
    parts = RECIPES[family]
    file = folder / f"{family}-small.toml"
    file.write_text(
        f"[data]\n{parts['data'].format(folder=folder)}\n"
        f'[model]\nfamily = "{family}"\n{parts["model"]}\n'
        f"[train]\n{parts['train']}\n{SCHEDULE}"
        "[log]\nevery_steps = 5\nsamples = 4\nreport = false\n"
    )
    return file


def run_to_end(nursery: Nursery, file: Path, out: Path, resume: str | None = None) -> None:
    nursery.start(file, out, resume)
    assert nursery.ended() == 0


def kill_after(nursery: Nursery, file: Path, out: Path, step: int, chance: random.Random) -> None:
    """SIGKILL the run a few random milliseconds after its log has reached `step`."""
    process = nursery.start(file, out, "auto")
    over = False
    while not over and last_step(out / "metrics.jsonl") < step:
        over = nursery.has_news(within_s=0.001)
    if not over and not nursery.has_news(within_s=chance.uniform(0, 0.03)):
        os.kill(process, signal.SIGKILL)
    assert nursery.ended() in (0, signal.SIGKILL)


def last_step(metrics: Path) -> int:
    if not metrics.exists():
        return -1
    lines = [line for line in metrics.read_bytes().split(b"\n")[:-1] if line.endswith(b"}")]
    return json.loads(lines[-1])["step"] if lines else -1


def rows(out: Path) -> list[dict[str, object]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


@pytest.mark.parametrize("family", sorted(RECIPES))
def test_killed_and_resumed_run_ends_byte_equal(family: str, tmp_path: Path, nursery: Nursery) -> None:
    chance = random.Random(f"{family}-0")
    file = recipe(family, tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_to_end(nursery, file, calm)
    for _ in range(KILLS):
        kill_after(nursery, file, killed, chance.randrange(35), chance)
    run_to_end(nursery, file, killed, "auto")
    for which in ("last", "best"):
        for name in ("model", "optimizer", "rng"):
            ours, theirs = (
                (out / "checkpoints" / which / f"{name}.safetensors").read_bytes() for out in (killed, calm)
            )
            assert ours == theirs, f"{which}/{name} differs"
    assert rows(killed) == rows(calm)
    samples = sorted(path.name for path in (calm / "samples").iterdir())
    assert samples == sorted(path.name for path in (killed / "samples").iterdir())
    for name in samples:
        assert (killed / "samples" / name).read_bytes() == (calm / "samples" / name).read_bytes()
