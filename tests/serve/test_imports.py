"""What each process of the server does without."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "plotly", "onnx"}


@pytest.mark.parametrize(
    ("module", "without"),
    [
        (
            "triptych.serve.root",
            {"numpy", "onnxruntime", "tokenizers", "uvicorn", "starlette", "typer", "rich"},
        ),
        ("triptych.serve.node", {"numpy", "onnxruntime", "tokenizers", "typer", "rich"}),
        ("triptych.serve.models", {"uvicorn", "starlette", "prometheus_client", "typer", "rich"}),
    ],
)
def test_a_process_imports_only_what_it_needs(module: str, without: set[str]) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not (without | HEAVY) & set(loaded.stdout.split())
