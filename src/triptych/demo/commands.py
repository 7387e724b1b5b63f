"""Running `triptych` as a user would: a process, its arguments, its exit code."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from triptych.errors import TriptychError


class Commands:
    """Runs verbs one after the other and remembers what was typed."""

    def __init__(self) -> None:
        self.typed: list[str] = []

    def run(self, *words: str | Path) -> None:
        """Run one verb to its end, its output on this terminal. Raises `TriptychError` if it fails."""
        arguments = [str(word) for word in words]
        self.typed.append(shlex.join(["triptych", *arguments]))
        print(f"\n$ {self.typed[-1]}", flush=True)
        code = subprocess.run([sys.executable, "-m", "triptych", *arguments], check=False).returncode
        if code:
            raise TriptychError(
                f"exited with {code}",
                where=self.typed[-1],
                remedy="its own message is above; run it alone to look into it",
            )
