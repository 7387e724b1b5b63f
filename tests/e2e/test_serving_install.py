"""A serving install has no torch, and serves a bundle."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with `.[serve]`, exact versions."""
    folder = tmp_path_factory.mktemp("serving")
    venv.create(folder, with_pip=True)
    interpreter = folder / "bin" / "python"
    source = tmp_path_factory.mktemp("source")
    tracked = ["pyproject.toml", "README.md", "LICENSE", "constraints.txt", "src", "recipes"]
    subprocess.run(["cp", "-r", *tracked, str(source)], cwd=ROOT, check=True)
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "-c", "constraints.txt", ".[serve]"]
    subprocess.run(install, cwd=source, check=True, timeout=280)
    return interpreter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained VAE, exported by this environment."""
    folder = tmp_path_factory.mktemp("bundle") / "small"
    line = (
        "from triptych.learn import VAE; from triptych.learn.export import export; from pathlib import Path;"
        f"export(VAE(VAE.Config(sample_shape=(1, 4, 4), hidden=(8,), latent_dim=2)), Path({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", line], check=True, timeout=100, capture_output=True)
    return folder


@pytest.mark.timeout(300)
def test_it_has_no_torch_and_serves_the_bytes_it_samples(python: Path, bundle: Path) -> None:
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    packages = {line.split()[0].lower() for line in listed.splitlines()[2:]}
    assert not packages & {"torch", "onnx", "onnxscript", "scikit-learn", "plotly", "transformers"}

    process = subprocess.Popen(
        [python, "-m", "triptych", "serve", bundle, "--workers", "1", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = next(match[0] for line in process.stdout if (match := re.search(r"http://\S+:\d+", line)))
        request = urllib.request.Request(
            f"{url}/v1/models/small/sample",
            data=json.dumps({"n": 3, "seed": 5}).encode(),
            headers={"Accept": "application/x-npy", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            served = np.load(io.BytesIO(answer.read()))
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0, rest
    line = (
        "import triptych, sys;"
        f"sys.stdout.buffer.write(triptych.load({str(bundle)!r}).sample(3, seed=5).tobytes())"
    )
    local = subprocess.run([python, "-c", line], capture_output=True, check=True, timeout=60).stdout
    assert served.tobytes() == local


@pytest.mark.timeout(300)
@pytest.mark.parametrize("verb", ["train", "export"])
def test_a_verb_that_needs_the_learn_extra_says_so(python: Path, verb: str, tmp_path: Path) -> None:
    arguments = {
        "train": ["vae-digits", "--out", tmp_path / "run"],
        "export": [tmp_path, "--out", tmp_path / "b"],
    }
    done = subprocess.run(
        [python, "-m", "triptych", verb, *arguments[verb]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "triptych[learn]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(300)
def test_a_server_that_is_to_speak_grpc_says_what_that_needs(python: Path, bundle: Path) -> None:
    command = [python, "-m", "triptych", "serve", bundle, "--port", "0", "--set", "grpc.port=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'triptych[grpc]'" in done.stderr
    assert "Traceback" not in done.stderr
