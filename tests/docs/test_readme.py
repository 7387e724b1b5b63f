"""The README is executed: what it shows is what happens."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    """The fenced blocks whose info string is exactly `kind`."""
    return re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], folder: Path) -> None:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_shell_lines_go_from_data_to_an_endpoint(tmp_path: Path) -> None:
    (script,) = blocks("sh")
    assert "8000" in script
    run(["bash", "-euo", "pipefail", "-m", "-c", script.replace("8000", str(free_port()))], tmp_path)
    assert (tmp_path / "four.png").read_bytes().startswith(b"\x89PNG")


def test_the_python_lines_train_export_and_sample(tmp_path: Path) -> None:
    pages = blocks("python")
    assert len(pages) == 2
    for page in pages:
        run([sys.executable, "-c", page], tmp_path)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists(), link
