"""torch lives in learn: nothing else imports it, directly or on the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_TORCH = [
    "import triptych",
    "import triptych; triptych.load; triptych.Engine",
    "import triptych.bundle, triptych.infer",
    "import triptych.serve.root, triptych.serve.node, triptych.serve.models",
    "import triptych.cli; triptych.cli.register()",
    "import triptych.pages, triptych.demo",
]


@pytest.mark.parametrize("line", WITHOUT_TORCH)
def test_importing_this_does_not_import_torch(line: str) -> None:
    check = f"{line}; import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_root_process_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnxruntime", "starlette", "uvicorn", "tokenizers")
    check = f"import triptych.serve.root, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
