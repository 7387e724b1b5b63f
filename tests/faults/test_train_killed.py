"""SIGKILL at any moment, then `--resume auto`: the weights end byte-equal to those of an uninterrupted run."""

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
from contextlib import contextmanager
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
        "train": "max_steps = 40",
    },
    "transformer": {
        "data": 'name = "text"\npath = "{folder}/text.txt"\nblock_size = 16',
        "model": "layers = 1\nheads = 2\nwidth = 16\ndropout = 0.1",
        "train": 'max_steps = 60\naccumulate = 2\nschedule = "warmup_cosine"\nwarmup_steps = 10\ngrad_clip = 1.0',
    },
}
SCHEDULE = "batch_size = 16\nvalidate_every_steps = 20\ncheckpoint_every_steps = 4\n"
MAIN = "from triptych.cli.train import train; import typer; app = typer.Typer(); app.command()(train); app()"


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


def command(file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-c", MAIN, str(file), "--out", str(out), *more]


def run_to_end(file: Path, out: Path, *more: str) -> None:
    done = subprocess.run(command(file, out, *more), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@contextmanager
def watched(file: Path, out: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A training process whose metrics file is a pipe's other end away: each line it writes is an event here."""
    process = subprocess.Popen(
        command(file, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process, out / "metrics.jsonl"
    finally:
        process.kill()
        process.wait(timeout=30)
        assert process.stderr is not None
        process.stderr.close()


def kill_after(file: Path, out: Path, steps: int, chance: random.Random) -> None:
    """Kill the run a random number of microseconds after it has written something at or after `steps`."""
    with watched(file, out, "--resume", "auto") as (process, metrics):
        handle = os.pidfd_open(process.pid)
        try:
            while process.poll() is None and last_step(metrics) < steps:
                select.select([handle], [], [], 0.002)  # ends at once when the process does
            select.select([handle], [], [], chance.uniform(0, 0.05))
        finally:
            os.close(handle)
        process.send_signal(signal.SIGKILL)


def last_step(metrics: Path) -> int:
    if not metrics.exists():
        return -1
    lines = [line for line in metrics.read_bytes().split(b"\n")[:-1] if line.endswith(b"}")]
    return json.loads(lines[-1])["step"] if lines else -1


def rows(out: Path) -> list[dict[str, object]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "elapsed_s"} for line in lines]


@pytest.mark.parametrize("family", sorted(RECIPES))
def test_killed_and_resumed_run_ends_byte_equal(family: str, tmp_path: Path) -> None:
    chance = random.Random(f"{family}-0")
    file = recipe(family, tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run_to_end(file, calm)
    for at in (5, chance.randrange(10, 35)):
        kill_after(file, killed, at, chance)
    run_to_end(file, killed, "--resume", "auto")
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
