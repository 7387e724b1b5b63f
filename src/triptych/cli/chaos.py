"""`triptych chaos`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from triptych.serve.chaos.session import Report

CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n"]


def chaos(
    experiment: Annotated[
        list[int] | None, typer.Option(help="number of an experiment; may be repeated; all if not given")
    ] = None,
    broker: Annotated[
        list[str] | None,
        typer.Option(help="where work queues: memory, sqlite, amqp or machines; may be repeated"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="how often each is run, its random moments anew each time")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="each thing once, in seconds")] = False,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document instead of a table")] = False,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="what to serve; may be repeated; small untrained models if not given"),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="factor on every bound in seconds, for a machine that has other work")
    ] = 1.0,
) -> None:
    """Break a running server on purpose, and check that no accepted request is lost."""
    import signal
    import sys

    import msgspec
    from rich.console import Console

    from triptych.serve.chaos.outcome import Outcome
    from triptych.serve.chaos.session import Plan, run
    from triptych.serve.chaos.table import show

    plan = Plan(
        experiments=tuple(experiment or ()),
        brokers=tuple(broker or ("memory",)),
        seeds=seeds,
        quick=quick,
        patience=patience,
    )
    plan.check()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and end what was started
    told = Console(stderr=True)

    def tell(outcome: Outcome) -> None:
        verdict = "held  " if outcome.ok else "FAILED"
        line = f"{outcome.experiment:>2} {verdict} {outcome.elapsed_s:5.1f} s  {outcome.fault}"
        told.print(line, style="dim", soft_wrap=True)

    report: Report = run(plan, complete(bundle or []), tell)
    if json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(report, Console(width=None if told.is_terminal else 160))
    raise typer.Exit(0 if report.ok else 1)


def complete(given: list[Path]) -> list[Path]:
    """The bundles given; where no model draws samples, or none generates text, an untrained one is added."""
    from triptych.serve.chaos.stage import is_text

    kinds = {is_text(bundle) for bundle in given}
    return given + [made(kind) for kind in (False, True) if kind not in kinds]


def made(text: bool) -> Path:
    """A small untrained model as a bundle, from the cache or exported into it now.

    Raises: ConfigError, which names the extra, if it is not there and cannot be made; DataError if there
        is no cache, or it cannot be written.
    """
    from triptych import __version__
    from triptych.bundle.reader import read
    from triptych.errors import BundleError, ConfigError, DataError
    from triptych.infer import calibration_store

    folder = calibration_store.folder() / f"chaos-{__version__}" / ("text" if text else "vae")
    try:
        read(folder)
    except BundleError:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot be made ({error.strerror})",
                where=str(folder.parent),
                remedy="set TRIPTYCH_CACHE to a folder that can be written",
            ) from error
        try:
            export_text(folder) if text else export_vae(folder)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"too few are given, and making one needs {error.name}",
                where="--bundle",
                valid="folders of `triptych export`: one that draws samples and one that generates text",
                remedy="name them, or install the extra: pip install 'triptych[learn]'",
            ) from error
    return folder


def export_vae(folder: Path) -> None:
    """An untrained VAE of 8 x 8 pictures."""
    from triptych.learn import VAE
    from triptych.learn.export import export

    export(VAE(VAE.Config(sample_shape=(1, 8, 8), hidden=(16,), latent_dim=4)), folder)


def export_text(folder: Path) -> None:
    """An untrained Transformer over characters."""
    from tokenizers import Tokenizer, decoders, models

    from triptych.learn import Transformer
    from triptych.learn.export import export

    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(CHARACTERS)}, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    config = Transformer.Config(vocab_size=len(CHARACTERS), block_size=64, layers=1, heads=2, width=32)
    export(Transformer(config), folder, tokenizer=tokenizer.to_str())
