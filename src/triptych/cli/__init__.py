"""The command line: one verb per file, each a function of the same name.

A verb's module imports only typer at the top; everything else is imported when the verb runs, so `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import typer

from triptych.errors import TriptychError

VERBS = ("train", "evaluate", "export", "inspect", "sample", "serve", "demo", "recipes", "bench")

app = typer.Typer(
    name="triptych",
    help="Train, export and serve deep generative models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def register() -> None:
    """Put every verb of `VERBS` on the command line."""
    for verb in VERBS:
        module = import_module(f"triptych.cli.{verb}")
        app.command(verb)(getattr(module, verb))


def main() -> None:
    """Run the command line; an error raised on purpose prints one message and exits with 2, never a traceback."""
    register()
    try:
        app()
    except TriptychError as error:
        if os.environ.get("TRIPTYCH_TRACEBACK"):
            raise
        print(f"triptych: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("triptych: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
