"""A bundle is open: forty lines without Triptych draw the same bytes."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import triptych

SCRIPT = Path(__file__).parents[2] / "examples" / "read_bundle.py"


def read(bundle: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(bundle), str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_example_is_forty_lines_without_triptych() -> None:
    source = SCRIPT.read_text("utf-8")
    assert len(source.splitlines()) <= 40
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in imports
        for alias in node.names
    }
    packages = {str(name).partition(".")[0] for name in names}
    assert packages - sys.stdlib_module_names == {"numpy", "onnxruntime", "safetensors"}


@pytest.mark.parametrize("name", ["images", "kinds", "text"])
def test_the_example_draws_the_same_bytes(name: str, bundles: Path, tmp_path: Path) -> None:
    done = read(bundles / name, tmp_path / "samples.npy")
    assert done.returncode == 0, done.stderr
    with triptych.load(bundles / name, engine="onnxruntime") as engine:
        wanted = engine.sample(4, seed=0)
    samples = np.load(tmp_path / "samples.npy")
    assert samples.dtype == wanted.dtype
    assert samples.tobytes() == wanted.tobytes()


def test_the_example_says_what_it_does_not_draw(bundles: Path, tmp_path: Path) -> None:
    done = read(bundles / "codes", tmp_path / "samples.npy")
    assert (done.returncode, done.stderr) == (1, "draws latents and texts, not codes\n")


@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors", "decode.onnx"])
def test_the_example_refuses_a_damaged_file(file: str, bundles: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundles / "images", tmp_path / "damaged"))
    content = bytearray((damaged / file).read_bytes())
    content[-80] ^= 1
    (damaged / file).write_bytes(content)
    done = read(damaged, tmp_path / "samples.npy")
    assert done.returncode == 1
    assert f"{file} is damaged" in done.stderr
