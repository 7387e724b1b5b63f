"""A bundle is open: Node.js reads one and draws the same samples."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import triptych
from triptych.bundle import noise

NODE = Path(__file__).parents[2] / "examples" / "node"
COUNT = 100_000


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages installed as the lock file says."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("node or npm is missing: make system installs them")
        pytest.skip("node or npm is missing: make system installs them")
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    run("npm", "ci", "--no-progress", folder=folder)
    return folder


def run(*command: str | Path, folder: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("name", ["images", "kinds"])
def test_node_draws_what_python_draws(name: str, node: Path, bundles: Path, tmp_path: Path) -> None:
    run("node", "read_bundle.js", bundles / name, tmp_path / "samples.f32", folder=node)
    with triptych.load(bundles / name, engine="onnxruntime") as engine:
        wanted = engine.sample(4, seed=0).reshape(-1)
    # The noise is the same; two releases of onnxruntime may sum in another order.
    np.testing.assert_allclose(np.fromfile(tmp_path / "samples.f32", "<f4"), wanted, rtol=0, atol=1e-5)


def test_nodes_noise_is_numpys_but_for_the_last_place_of_the_tail(node: Path, tmp_path: Path) -> None:
    script = (
        'import { normals } from "./noise.js"; import { writeFileSync } from "node:fs";'
        "const g = normals(1, 2, 0);"
        f"writeFileSync(process.argv[2], Float32Array.from({{ length: {COUNT} }}, () => g.next().value));"
    )
    (node / "draw.js").write_text(script)
    run("node", "draw.js", tmp_path / "normals.f32", folder=node)
    drawn, wanted = np.fromfile(tmp_path / "normals.f32", "<f4"), noise.normal([1], [2], (COUNT,))[0]
    inside = np.abs(wanted) < 3.65
    assert (drawn[inside] == wanted[inside]).all()
    assert not inside.all(), "the tail is drawn too"
    np.testing.assert_allclose(drawn, wanted, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("prompt", ["", "tö be 日", "to be " * 20])
def test_node_writes_what_python_writes(prompt: str, temperature: float, node: Path, bundles: Path) -> None:
    """By the step in operators of ONNX alone, beyond a full block, with the same random numbers."""
    command = ["node", "generate.js", bundles / "text", prompt, "60", temperature, "7"]
    done = subprocess.run(list(map(str, command)), cwd=node, capture_output=True, timeout=100, check=True)
    with triptych.load(bundles / "text") as engine:
        made = engine.generate(prompt, max_tokens=60, temperature=temperature, seed=7)
    assert done.stdout.decode() == f"{prompt}{made.text}\n"


@pytest.mark.parametrize(
    ("script", "bundle", "said"),
    [
        ("generate.js", "images", "images is no text model: read_bundle.js draws"),
        ("read_bundle.js", "text", "generate.js writes texts"),
        ("read_bundle.js", "codes", "codes draws no latents, but codes"),
    ],
)
def test_node_says_which_script_reads_a_bundle(
    script: str, bundle: str, said: str, node: Path, bundles: Path
) -> None:
    done = run("node", script, bundles / bundle, "x", folder=node, check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_node_refuses_a_damaged_file(node: Path, bundles: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundles / "images", tmp_path / "damaged"))
    content = bytearray((damaged / "decode.onnx").read_bytes())
    content[-8] ^= 1
    (damaged / "decode.onnx").write_bytes(content)
    done = run("node", "read_bundle.js", damaged, tmp_path / "x", folder=node, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "decode.onnx is damaged")


def test_the_lock_file_names_no_registry_and_pins_every_package() -> None:
    lock = json.loads((NODE / "package-lock.json").read_text("utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all(package["integrity"] and "resolved" not in package for package in packages.values())
