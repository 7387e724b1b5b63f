"""`triptych train RECIPE`: train a model as a recipe says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped recipe.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. Default: runs/RECIPE, numbered.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="auto|PATH", help="Go on from a checkpoint, or `auto`.")
    ] = None,
) -> None:
    """Train a model as a recipe says, and leave a run folder with checkpoints, a log and a report."""
    from triptych.errors import ConfigError
    from triptych.learn.train.recipe import load_recipe
    from triptych.learn.train.trainer import Trainer, free_folder

    chosen = load_recipe(recipe, set_ or ())
    base = Path("runs") / chosen.name
    if resume not in (None, "auto"):
        above = Path(os.path.abspath(resume)).parents
        if len(above) < 3:  # the folder of checkpoints, the run, and where that lies
            valid = "`auto`, or a checkpoint folder, such as RUN/checkpoints/last"
            raise ConfigError(f"got `{resume}`", where="--resume", valid=valid)
        base = above[1]  # the run that the checkpoint belongs to
    folder = out or (base if resume else free_folder(base))
    model, data = chosen.make()
    run = Trainer.of(chosen.train, chosen.log, folder).fit(model, data, resume=resume)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun started, one speaks
    metric = run.summary["validation_metric"]
    first, best = run.summary["first_validation"][metric], run.summary["best_validation"].get(metric)
    print(f"{run.path}: {run.summary['steps']} steps in {run.summary['seconds']:.1f} s, ", end="")
    change = " -> ".join("not a number" if value is None else f"{value:.4f}" for value in (first, best))
    print(f"validation {metric} {change}; see {run.path / 'report.html'}")
