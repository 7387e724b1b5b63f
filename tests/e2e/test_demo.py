"""The demo from end to end, with short trainings; then its report in a browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished demo."""
    out = tmp_path_factory.mktemp("demo") / "out"
    settings = ["--set", "train.max_steps=60", "--set", "train.validate_every_steps=30"]
    command = [sys.executable, "-m", "triptych", "demo", "--out", str(out), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return out


@pytest.mark.timeout(420)
def test_the_summary_says_what_happened(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_bytes())
    assert summary["ok"] is True
    assert [model["family"] for model in summary["models"]] == ["vae", "wgan-gp", "transformer"]
    assert all(model["last_val_loss"] < model["first_val_loss"] for model in summary["models"])
    assert summary["serving"]["errors"] == 0
    fault = summary["fault"]
    assert fault["errors"] == 0
    assert fault["bytes_equal_to_calm_run"] is True
    assert fault["replacement_pid"] not in (None, fault["killed_pid"])


@pytest.mark.timeout(420)
def test_the_report_is_one_page_that_a_browser_draws_without_a_network(demo: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None and not os.environ.get("CI"):
        pytest.skip("chromium is not installed")
    assert browser is not None, "chromium is not installed: run `make system`"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    command = [browser, *flags, f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000", "--dump-dom"]
    page = subprocess.run(
        [*command, (demo / "report.html").as_uri()], capture_output=True, text=True, timeout=100, check=True
    ).stdout
    assert "every check held" in page
    figures = set(re.findall(r'class="card plot[^"]*js-plotly-plot" id="([\w-]+)"', page))
    assert figures == {"curve-vae", "curve-wgan-gp", "curve-transformer", "latency", "kill"}
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page.split("<body>")[1])


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "triptych", "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "precious"
