"""The command line: one verb per file, each a function of the same name.

A verb's module imports only typer at the top, the rest when the verb runs: `--help` is quick.
"""

from __future__ import annotations

import os
from importlib import import_module
from keyword import iskeyword

import typer

from triptych.errors import TriptychError

# Modules of the extras: one that is not installed is named together with what installs it.
EXTRAS = {
    "learn": {"torch", "onnx", "onnxscript", "sklearn", "plotly", "jinja2", "jaxtyping", "filelock"},
    "serve": {"uvloop", "httptools", "orjson", "prometheus_client", "setproctitle"},
    "rabbitmq": {"aio_pika", "aiormq", "pamqp"},
}
VERBS = (
    "train",
    "evaluate",
    "compare",
    "export",
    "import",
    "inspect",
    "calibrate",
    "sample",
    "serve",
    "gateway",
    "worker",
    "requeue",
    "swap",
    "top",
    "demo",
    "recipes",
    "bench",
    "chaos",
)

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
        name = f"{verb}_" if iskeyword(verb) else verb
        app.command(verb)(getattr(import_module(f"triptych.cli.{name}"), name))


def missing_extra(module: str) -> str:
    """What to install when `module` is not there; empty for a module of no extra.

    >>> missing_extra("torch.nn")
    "this command needs torch; install it with pip install 'triptych[learn]'"
    """
    package = module.partition(".")[0]
    for extra, modules in EXTRAS.items():
        if package in modules:
            return f"this command needs {package}; install it with pip install 'triptych[{extra}]'"
    return ""


def main() -> None:
    """Run the command line; an error raised on purpose is one message and exit code 2, never a traceback."""
    register()
    try:
        app()
    except (TriptychError, ModuleNotFoundError) as error:
        if isinstance(error, TriptychError):
            message = f"{type(error).__name__}: {error}"
        else:
            message = missing_extra(error.name or "")
        if not message or os.environ.get("TRIPTYCH_TRACEBACK"):
            raise
        raise end(message, 2) from None
    except KeyboardInterrupt:
        raise end("interrupted", 130) from None


def end(message: str, code: int) -> SystemExit:
    """The end of the command, told on stderr: as it is, or as a line of a log whose lines are objects."""
    from triptych.serve.supervise.log_lines import log_end

    log_end(message)
    return SystemExit(code)
