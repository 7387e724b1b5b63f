"""What lies in deploy/ is understood by its own tools where they are, and says what the programs say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import typer
import yaml

from triptych import __version__
from triptych.cli.gateway import gateway
from triptych.cli.serve import serve
from triptych.cli.worker import worker
from triptych.serve.http.app import ROUTES
from triptych.serve.remote.protocol import OPTIONS, Names
from triptych.serve.remote.roles import check_gateway, check_worker
from triptych.serve.root import MARGIN_S
from triptych.serve.settings import Settings, read_settings

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROGRAM = typer.Typer()
for verb in (serve, gateway, worker):
    PROGRAM.command()(verb)
VERBS = typer.main.get_command(PROGRAM).commands
BROKER = "amqp://triptych:secret@rabbitmq/"
OTHER_VARIABLES = {"TRIPTYCH_CACHE", "RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"}
CUSTOM = {"ScaledObject", "TriggerAuthentication"}  # of KEDA


def documents() -> Iterator[dict[str, Any]]:
    for path in KUBERNETES:
        yield from yaml.safe_load_all(path.read_text())


def of_kind(kind: str, name: str) -> dict[str, Any]:
    return next(d for d in documents() if d["kind"] == kind and d["metadata"]["name"] == name)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text()))


def parse(arguments: list[str], files: dict[str, str], tmp_path: Path) -> tuple[str, Settings]:
    """The verb, and the settings it would run with, by the real parser; `files` are those it may name."""
    verb, *rest = arguments
    parsed = VERBS[verb].make_context(verb, list(rest)).params
    config = parsed["config"]
    if config is not None:
        (tmp_path / config.name).write_text(files[config.name])
        config = tmp_path / config.name
    flags = {"http.port": "port", "http.host": "host", "jobs.path": "jobs", "log": "log"}
    given = {name: parsed.get(flag) for name, flag in flags.items()}
    overrides = [f"{name}={value}" for name, value in given.items() if value is not None]
    settings = read_settings(config, [*(parsed["set_"] or []), *overrides, f"jobs.broker={BROKER}"])
    if verb == "worker":
        assert parsed["bundles"]
        check_worker(settings)
    else:
        check_gateway(settings) if verb == "gateway" else None
    return verb, settings


def grace_s(verb: str, settings: Settings) -> float:
    """How long the program may take to end."""
    drain = settings.drain
    if verb == "worker":
        return 2 * drain.shutdown_s
    return drain.delay_s + 4 * drain.shutdown_s + MARGIN_S


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_manifests_are_what_kubernetes_takes(path):
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] not in CUSTOM:
            assert kubernetes_validate.validate(document, "1.31", strict=True) == "1.31"  # else it raises


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_units_are_what_systemd_takes_and_commands_what_the_programs_take(unit, tmp_path):
    settings = dict(
        line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    shell = shlex.split(settings["ExecStart"])[2]
    command = shlex.split(shell)
    assert command[1].endswith("/triptych")
    verb, parsed = parse(command[2:], {}, tmp_path)
    assert float(settings["TimeoutStopSec"]) >= grace_s(verb, parsed)
    assert ("EnvironmentFile" in settings) == (verb != "serve")
    if shutil.which("systemd-analyze"):
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", ["gateway", "worker"])
def test_compose_runs_what_the_programs_take(service, tmp_path):
    told = compose()["services"][service]
    verb, settings = parse(told["command"], {}, tmp_path)
    assert verb == service
    assert told["image"] == f"triptych:{__version__}"
    assert seconds(told["stop_grace_period"]) >= grace_s(verb, settings)
    assert told["depends_on"]["rabbitmq"] == {"condition": "service_healthy"}
    if verb == "gateway":
        assert told["ports"] == [f"127.0.0.1:{settings.http.port}:{settings.http.port}"]
        (url,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", told["healthcheck"]["test"][-1])
        assert url[0] == str(settings.http.port)
        assert url[1] in {route.path for route in ROUTES}
        assert settings.jobs.path.startswith(told["volumes"][0].partition(":")[2])


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="Debian package docker-compose")
def test_compose_is_what_docker_compose_takes():
    environment = {"PATH": os.environ["PATH"], "BUNDLES": "/srv/bundles", "RABBITMQ_PASSWORD": "secret"}
    command = ["docker-compose", "--file", DEPLOY / "compose" / "compose.yaml", "config"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)["services"]
    assert read["worker"]["environment"]["TRIPTYCH_BROKER"] == "amqp://triptych:secret@rabbitmq/"


def test_volumes_of_compose_are_declared():
    told = compose()
    used = {volume.partition(":")[0] for s in told["services"].values() for volume in s.get("volumes", [])}
    assert {name for name in used if not name.startswith("$")} == set(told["volumes"])


@pytest.mark.parametrize(
    ("kind", "name"), [("StatefulSet", "triptych-gateway"), ("Deployment", "triptych-worker")]
)
def test_pods_run_what_the_programs_take(kind, name, tmp_path):
    spec = of_kind(kind, name)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    verb, settings = parse(container["args"], of_kind("ConfigMap", "triptych")["data"], tmp_path)
    assert name == f"triptych-{verb}"
    assert container["image"] == f"triptych:{__version__}"
    assert spec["terminationGracePeriodSeconds"] >= grace_s(verb, settings)
    assert spec["securityContext"]["runAsUser"] == 10001
    if verb == "gateway":
        assert container["ports"] == [{"name": "http", "containerPort": settings.http.port}]
        assert settings.http.host == "0.0.0.0"
        paths = {route.path for route in ROUTES if route.method == "GET"}
        probes = {
            probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")
        }
        assert {probe["path"] for probe in probes.values()} <= paths
        assert (probes["liveness"]["path"], probes["readiness"]["path"]) == ("/livez", "/readyz")
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert settings.jobs.path.startswith(mounted["jobs"])
    else:
        assert not [key for key in container if key.endswith("Probe")]
        processes = settings.workers.count
        assert container["resources"]["requests"]["cpu"] == str(processes)
        batches, texts = of_kind("ScaledObject", name)["spec"]["triggers"]
        assert processes < float(batches["metadata"]["value"]) < 2 * processes
        assert float(texts["metadata"]["value"]) < processes * settings.workers.slots


def test_the_scaler_counts_the_queues_of_workers():
    names = Names(OPTIONS.prefix)
    batches, texts = (
        t["metadata"]["queueName"] for t in of_kind("ScaledObject", "triptych-worker")["spec"]["triggers"]
    )
    key = ("my-vae.2", "0123456789ab", "ba9876543210")
    assert re.search(batches, names.batches(*key))
    assert re.search(texts, names.texts(*key))
    assert not re.search(batches, names.texts(*key))
    assert not re.search(texts, names.private("gateway", "0"))


def test_references_between_manifests_hold():
    text = msgspec.json.encode(list(documents())).decode()
    secret, config = of_kind("Secret", "triptych-broker"), of_kind("ConfigMap", "triptych")
    assert set(re.findall(r'"key":"(\w+)"', text)) == set(secret["stringData"])
    for name, body in config["data"].items():
        assert name in text
        tomllib.loads(body)
    for budget in (d for d in documents() if d["kind"] == "PodDisruptionBudget"):
        assert text.count(f'"matchLabels":{{"app":"{budget["metadata"]["name"]}"}}') == 2


def test_every_variable_is_one_that_is_read():
    known = {p.envvar for verb in VERBS.values() for p in verb.params if p.envvar} | OTHER_VARIABLES
    services = compose()["services"].values()
    named = {name for service in services for name in service.get("environment", {})}
    for path in [*KUBERNETES, *UNITS, DEPLOY / "Dockerfile"]:
        named |= set(re.findall(r"\bTRIPTYCH_\w+", path.read_text()))
    assert named <= known
    assert "TRIPTYCH_BROKER" in named


def test_the_image_holds_what_is_copied_and_runs_as_nobody():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    top = DEPLOY.parent
    for line in lines:
        if line.startswith("COPY"):
            assert all((top / name).exists() for name in line.split()[1:-1])
    assert lines[-2:] == ["USER 10001", 'ENTRYPOINT ["triptych"]']
    extras = tomllib.loads((top / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"'\.\[([\w,]+)\]'", "\n".join(lines))
    assert set(wanted.split(",")) <= set(extras)
    assert os.access(top / "deploy" / "Dockerfile", os.R_OK)
