"""SIGKILL at any moment, then `--resume auto`: the weights end byte-equal to those of a calm run.

A checkpoint is the moment that matters most, so there the kills are not random: before each call that touches
a file, one after the other, and after each file that is written in Rust, where Python cannot look.
"""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from triptych.learn.train import checkpoint

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
    "vq-vae": {
        "data": 'name = "idx"\npath = "{folder}"',
        "model": "channels = [8]\ncodes = 16\ncode_dim = 4\nprior_layers = 1\nprior_width = 16",
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
import json, os, resource, signal, sys
import torch._dynamo
import triptych.learn.train.recipe, triptych.learn.train.trainer
from triptych.cli.train import train
from triptych.learn.train import checkpoint

TOUCH = {"close", "listdir", "mkdir", "open", "readlink", "rename", "replace", "rmdir", "scandir",
         "serialize_file", "symlink", "unlink", "write"}
calls, depth, seen = 0, 0, 0


def kill_inside(write, point, after_calls, event, size_bytes):
    def profile(frame, kind, called):
        global seen
        name = called.__name__ if kind in ("c_call", "c_return") else None
        if not (kind == "c_call" and name in TOUCH or kind == "c_return" and name == "serialize_file"):
            return
        seen += 1
        if seen == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function):
        def call(*args, **kwargs):
            global calls, depth, seen
            calls += depth == 0
            if depth or calls <= after_calls:
                depth += 1
                try:
                    return function(*args, **kwargs)
                finally:
                    depth -= 1
            depth, seen = 1, 0
            if size_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
            sys.setprofile(profile)
            try:
                return function(*args, **kwargs)
            finally:
                sys.setprofile(None)
                depth = 0
        return call

    checkpoint.write, checkpoint.point = watched(write), watched(point)


os.fsync = lambda handle: None  # it guards against a loss of power, not of the process, and takes its time
for line in sys.stdin:
    recipe, out, resume, kill = json.loads(line)
    if (child := os.fork()) == 0:
        os.dup2(2, 1)
        if kill:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            kill_inside(checkpoint.write, checkpoint.point, *kill)
        train(recipe, None, __import__("pathlib").Path(out), resume)
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Kill(NamedTuple):
    """Where a run kills itself: in the first call of `checkpoint.write` or `.point` after `after_calls` of
    them, at the `event`-th touch of a file, or as soon as a file would exceed `size_bytes`.
    """

    after_calls: int
    event: int = 0
    size_bytes: int = 0


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

    def start(self, file: Path, out: Path, resume: str | None, kill: Kill | None = None) -> int:
        """Begin a run; returns its process id."""
        self.orders.write(json.dumps([str(file), str(out), resume, kill]).encode() + b"\n")
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
    assert_same(killed, calm)


def assert_same(killed: Path, calm: Path) -> None:
    """The two runs left the same checkpoints, log and samples, byte for byte."""
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


def kept(out: Path) -> int:
    """The step that `last` names, -1 if there is none yet; what `last` and `best` name is whole."""
    for which in ("last", "best"):
        if os.path.lexists(link := out / "checkpoints" / which):
            tensors, facts = checkpoint.read(link)
            assert {"model", "optimizer", "rng"} <= tensors.keys()
            assert link.resolve().name == f"step-{facts['step']:08d}"
    last = out / "checkpoints" / "last"
    return int(last.resolve().name.removeprefix("step-")) if os.path.lexists(last) else -1


DENSE = "validate_every_steps = 3\ncheckpoint_every_steps = 1\n"


def dense_recipe(family: str, folder: Path, steps: int) -> Path:
    """A checkpoint at every step, and now and then a better one."""
    file = recipe(family, folder)
    text = file.read_text().replace("threads = 1\n", "")
    text = re.sub(r"max_steps = \d+", f"max_steps = {steps}\nthreads = 1", text)
    file.write_text(text.replace(SCHEDULE, "batch_size = 4\n" + DENSE))
    return file


@pytest.mark.parametrize("after_calls", [0, 2])
def test_a_checkpoint_write_may_be_killed_before_any_touch_of_a_file(
    after_calls: int, tmp_path: Path, nursery: Nursery
) -> None:
    """With `after_calls` 0 also the clearing up after the kill before is killed."""
    file = dense_recipe("vae", tmp_path, steps=140)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_to_end(nursery, file, calm)
    event, ended, before = 0, int(signal.SIGKILL), -1
    while ended == signal.SIGKILL:
        event += 1
        nursery.start(file, killed, "auto", Kill(after_calls, event))
        ended = nursery.ended()
        assert kept(killed) >= before, "progress was lost"
        before = kept(killed)
    assert ended == 0
    assert event > 30
    assert_same(killed, calm)


@pytest.mark.parametrize("family", ["transformer", "vq-vae", "wgan-gp"])
def test_the_checkpoints_of_other_families_may_be_killed_too(
    family: str, tmp_path: Path, nursery: Nursery
) -> None:
    file = dense_recipe(family, tmp_path, steps=30)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_to_end(nursery, file, calm)
    before = -1
    for event in random.Random(family).sample(range(1, 45), k=8):
        nursery.start(file, killed, "auto", Kill(2, event))
        assert nursery.ended() == signal.SIGKILL
        assert kept(killed) > before, "progress was lost"
        before = kept(killed)
    run_to_end(nursery, file, killed, "auto")
    assert_same(killed, calm)


def test_a_write_may_die_in_the_middle_of_any_file(tmp_path: Path, nursery: Nursery) -> None:
    file = dense_recipe("vae", tmp_path, steps=20)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_to_end(nursery, file, calm)
    before = -1
    sizes = {path.stat().st_size for path in (calm / "checkpoints/last").iterdir()}
    for size_bytes in sorted({1, *(size - 1 for size in sizes)}):
        nursery.start(file, killed, "auto", Kill(2, size_bytes=size_bytes))
        assert nursery.ended() == signal.SIGXFSZ
        assert kept(killed) > before, "progress was lost"
        before = kept(killed)
    run_to_end(nursery, file, killed, "auto")
    assert_same(killed, calm)
