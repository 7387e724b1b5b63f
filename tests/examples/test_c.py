"""libtriptych: a C program draws and writes what Python does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import triptych

ROOT = Path(__file__).parents[2]
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1"]


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library."""
    if shutil.which("gcc") is None:
        if os.environ.get("CI"):
            pytest.fail("gcc is missing: make system installs it")
        pytest.skip("gcc is missing: make system installs it")
    folder = tmp_path_factory.mktemp("native")
    run(sys.executable, ROOT / "native" / "build.py", folder)
    return folder


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command with the packages of this process, and nothing else of its environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(triptych.__file__).parents[1])}
    words = [str(word) for word in command]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def compiled(native: Path, source: Path) -> Path:
    """A C program linked with the library."""
    program = native / source.stem
    link = [f"-L{native}", "-ltriptych", f"-Wl,-rpath,{native}", "-lpthread"]
    run("gcc", *FLAGS, f"-I{native}", "-o", program, source, *link)
    return program


def test_the_c_program_draws_what_python_draws(native: Path, bundles: Path) -> None:
    program = compiled(native, ROOT / "examples" / "c" / "main.c")
    with triptych.load(bundles / "images") as engine:
        rows = engine.sample(4, seed=0).reshape(4, -1).astype("float64")
    lines = [f"sample {i}: {row.size} numbers, mean {row.mean():.6f}" for i, row in enumerate(rows)]
    assert run(program, bundles / "images").stdout.splitlines() == lines
    with triptych.load(bundles / "text") as engine:
        text = engine.generate("tö be", max_tokens=40, temperature=0.8, seed=7).text
    assert run(program, bundles / "text", "tö be").stdout == f"tö be{text}\n".replace("\0", "␀")


def test_the_c_program_says_what_is_wrong(native: Path, bundles: Path) -> None:
    program = compiled(native, ROOT / "examples" / "c" / "main.c")
    for words, said in (
        (["/no/such"], "BundleNotFound: '/no/such': there is no such folder"),
        ([bundles / "text"], "is a text model. Use triptych_generate"),
        ([bundles / "images", "to be"], "does not generate text. Use sample"),
    ):
        done = run(program, *words, check=False)
        assert done.returncode == 1
        assert said in done.stderr


def test_threads_share_an_engine_and_keep_their_own_errors(native: Path, bundles: Path) -> None:
    done = run(compiled(native, Path(__file__).with_name("threads.c")), bundles / "images", check=False)
    assert (done.returncode, done.stdout) == (0, "InputError: folder: got NULL; valid: a string\n")
