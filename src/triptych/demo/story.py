"""The demo from the first line to the last: train, export, serve, load, kill, report."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import triptych
from triptych.demo import checks, report
from triptych.demo.cast import CAST, GAN, PROMPT, TEXT, VAE, Role
from triptych.demo.checks import Check
from triptych.demo.commands import Commands
from triptych.demo.fault import Fault, kill_a_worker_under_load
from triptych.demo.runs import TrainedRun
from triptych.errors import ConfigError
from triptych.pages import render, write_page
from triptych.serve.chaos.load import CONNECTIONS, Tally, plan, run_load
from triptych.serve.chaos.server import Server

WORKERS = 2
CALM_REQUESTS = 1200
PANEL_SEED, PANEL_IMAGES, PANEL_TOKENS = 7, 36, 300
CHECKED_SAMPLES, CHECKED_SEED = 64, 2024


@dataclass
class Served:
    """What the serving half of the demo gave."""

    calm: Tally
    fault: Fault
    panels: list[dict[str, str]]
    checks: list[Check] = field(default_factory=list)


def run(out: Path, *, set_: tuple[str, ...] = (), seed: int = 0) -> int:
    """Run the whole demo into the folder `out`; 0 only if every check held.

    Args:
        set_: settings for every training, as `triptych train --set` takes them.
        seed: which worker is killed, and when.
    """
    console, started_s = Console(), time.monotonic()
    _clear(out)
    commands = Commands()
    runs = {role.name: train(commands, role, out, set_) for role in CAST}
    bundles = {role.name: export(commands, role, out) for role in CAST}
    server = Server(list(bundles.values()), workers=WORKERS, log=out / "serve.log")
    commands.typed.append("triptych " + " ".join(server.command))
    console.print(f"\n$ {commands.typed[-1]}", highlight=False)
    served = serve(console, server, bundles, seed=seed)
    every = [checks.losses_fell(trained) for trained in runs.values()] + served.checks
    ok = all(check.held for check in every)
    summary = summarise(ok, runs, bundles, served)
    report.write_summary(out / "summary.json", {**summary, "checks": [vars(check) for check in every]})
    write_report(out, summary, runs, served, every, commands.typed, time.monotonic() - started_s)
    show(console, summary, every, out)
    return 0 if ok else 1


def _clear(out: Path) -> None:
    """Empty a folder of an earlier demo; never one of something else.

    Raises: ConfigError for the latter, and for what cannot be such a folder.
    """
    other = "choose another --out"
    try:
        if out.exists() and any(out.iterdir()) and not (out / ".demo").exists():
            raise ConfigError("is not empty and not of a demo", where=str(out), remedy=other)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / ".demo").touch()
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise ConfigError(problem, where=str(out), remedy=other) from error


def train(commands: Commands, role: Role, out: Path, set_: tuple[str, ...]) -> TrainedRun:
    """Train one model by its recipe."""
    settings = [word for setting in (*role.settings, *set_) for word in ("--set", setting)]
    commands.run("train", role.recipe, *settings, "--out", out / role.name)
    return TrainedRun(role, out / role.name)


def export(commands: Commands, role: Role, out: Path) -> Path:
    """Export one run and verify the bundle."""
    bundle = out / "bundles" / role.name
    commands.run("export", out / role.name, "--out", bundle)
    commands.run("inspect", bundle)
    return bundle


def serve(console: Console, server: Server, bundles: dict[str, Path], *, seed: int) -> Served:
    """Serve the bundles: equal bytes, a calm load, a load with a kill in it, a clean end."""
    with server:
        console.print(f"ready at {server.address} in {server.seconds_to_ready:.1f} s", highlight=False)
        held: list[Check] = []
        for role in (VAE, GAN):
            held += checks.images_equal(server, bundles[role.name], n=CHECKED_SAMPLES, seed=CHECKED_SEED)
        check, text = checks.text_equal(server, bundles[TEXT.name], max_tokens=PANEL_TOKENS, seed=PANEL_SEED)
        held.append(check)
        panels = [image_panel(server, role) for role in (VAE, GAN)]
        panels.append(report.panel(TEXT.title, report.text_request(TEXT.name), text=text))
        requests = plan([VAE.name, GAN.name], TEXT.name, PROMPT, CALM_REQUESTS)
        with console.status("calm load"):
            calm = run_load(server, requests)
        with console.status("load, and a SIGKILL in the middle of it"):
            fault = kill_a_worker_under_load(server, requests, seed=seed)
    held += [
        checks.no_errors("calm load: no errors", calm),
        checks.no_errors("load with a kill: no errors", fault.tally),
        checks.replaced(fault),
        checks.same_bytes(calm, fault, requests),
        checks.drained(server),
    ]
    return Served(calm, fault, panels, held)


def image_panel(server: Server, role: Role) -> dict[str, str]:
    """Served pictures of one image model."""
    drawn = checks.picture_of(server, role.name, n=PANEL_IMAGES, seed=PANEL_SEED)
    request = f'POST /v1/models/{role.name}/sample {{"n": {PANEL_IMAGES}, "seed": {PANEL_SEED}}}'
    return report.panel(role.title, request, drawn=drawn)


def summarise(
    ok: bool, runs: dict[str, TrainedRun], bundles: dict[str, Path], served: Served
) -> dict[str, Any]:
    """`summary.json`, without the checks."""
    latency = report.percentiles([answer.elapsed_s for answer in served.calm.answers])
    fault = served.fault
    return {
        "ok": ok,
        "models": [model_summary(trained, bundles[name]) for name, trained in runs.items()],
        "serving": {
            "requests": len(served.calm.answers),
            "errors": len(served.calm.errors),
            "requests_per_second": round(len(served.calm.answers) / served.calm.elapsed_s, 1),
            "p50_ms": round(latency["p50"], 2),
            "p99_ms": round(latency["p99"], 2),
        },
        "fault": {
            "killed_pid": fault.killed_pid,
            "replacement_pid": fault.replacement_pid,
            "seconds_to_restart": round(fault.seconds_to_restart, 3),
            "requests_during": len(fault.tally.answers),
            "errors": len(fault.tally.errors),
            "bytes_equal_to_calm_run": next(
                c.held for c in served.checks if c.name.startswith("bytes during")
            ),
        },
    }


def model_summary(trained: TrainedRun, bundle: Path) -> dict[str, Any]:
    """One model's entry in `summary.json`."""
    validations, told = trained.validations(), trained.summary
    with triptych.load(bundle) as engine:
        name = engine.backend.name
    return {
        "name": trained.role.name,
        "family": told["family"],
        "dataset": told["dataset"],
        "train_seconds": told["seconds"],
        "first_val_loss": validations[0][1],
        "last_val_loss": validations[-1][1],
        "bundle": str(bundle),
        "engine": name,
    }


def write_report(
    out: Path,
    summary: dict[str, Any],
    runs: dict[str, TrainedRun],
    served: Served,
    every: list[Check],
    commands: list[str],
    seconds: float,
) -> None:
    """`report.html`."""
    curves = [report.curve(trained) for trained in runs.values()]
    page = render(
        "demo.html",
        script="inline",
        figures=[*curves, report.latency_figure(served.calm), report.kill_figure(served.fault)],
        machine=report.machine(),
        seconds=seconds,
        panels=served.panels,
        vae=report.image_story(runs[VAE.name], 4),
        gan=report.image_story(runs[GAN.name], 4),
        text=report.text_story(runs[TEXT.name]),
        curves=[figure.id for figure in curves],
        metrics={name: trained.metric.replace("_", " ") for name, trained in runs.items()},
        connections=CONNECTIONS,
        workers=WORKERS,
        latencies=report.latency_rows(served.calm),
        checks=every,
        commands=commands,
        **summary,
    )
    write_page(out / "report.html", page)


def show(console: Console, summary: dict[str, Any], every: list[Check], out: Path) -> None:
    """The closing table."""
    table = Table(title="checks", title_justify="left", show_edge=False)
    table.add_column("")
    table.add_column("claim")
    table.add_column("figure", style="dim")
    for check in every:
        table.add_row("[green]held[/]" if check.held else "[red]FAILED[/]", check.name, check.detail)
    console.print()
    console.print(table)
    serving, fault = summary["serving"], summary["fault"]
    console.print(
        f"\n{serving['requests']} requests, {serving['requests_per_second']:.0f} per second, "
        f"p50 {serving['p50_ms']:.1f} ms, p99 {serving['p99_ms']:.1f} ms; "
        f"killed worker {fault['killed_pid']} replaced in {fault['seconds_to_restart']:.2f} s",
        highlight=False,
    )
    console.print(f"report: {(out / 'report.html').resolve()}", highlight=False, soft_wrap=True)
