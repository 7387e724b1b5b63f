"""Every serving setting, in one documented schema: its name, default, range and meaning.

A setting comes from a TOML file (`--config`), then from flags (`--set section.key=value`); an unknown name is
an error.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from triptych.errors import ConfigError, nearest

LONGEST_S = 1e9  # thirty years; "inf" would be a wait without an end
Count = Annotated[int, Meta(ge=1, le=2**53)]
Seconds = Annotated[float, Meta(gt=0, le=LONGEST_S)]
Origin = Annotated[str, Meta(pattern=r"^(\*|https?://[^/\s]+)$")]
SECRET, HIDDEN = ("token", "broker"), "***"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the sections: immutable, and unknown names are errors."""


class Http(Section, frozen=True):
    """The listening socket and what it accepts."""

    host: Annotated[str, Meta(description="address to listen on; 0.0.0.0 is every interface")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    token: Annotated[str, Meta(description="bearer token that /v1 and /v2 ask for; empty asks for none")] = ""
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(description='origins whose pages may call, such as "https://example.org"; "*" is every one'),
    ] = ()
    header_timeout_s: Annotated[
        Seconds, Meta(description="a request's header must be here by then (408)")
    ] = 10.0
    write_timeout_s: Annotated[
        Seconds, Meta(description="a client that takes nothing of its answer for this long is cut off")
    ] = 30.0
    keep_alive_s: Annotated[Seconds, Meta(description="an idle connection is closed after this long")] = 75.0
    connections: Annotated[
        Count,
        Meta(
            description="open at a time, as far as there are descriptors; then the longest idle one is"
            " closed. As many calls of gRPC may be under way; more are refused"
        ),
    ] = 10_000
    backlog: Annotated[
        int, Meta(ge=1, le=2**31 - 1, description="connections that may wait to be accepted")
    ] = 2048


class Grpc(Section, frozen=True):
    """The V2 inference protocol over gRPC, beside HTTP and with the same limits."""

    port: Annotated[
        int,
        Meta(ge=-1, le=65535, description="port to listen on, at http.host; 0 takes a free one, -1: no gRPC"),
    ] = -1


class Limits(Section, frozen=True):
    """What one request may ask for."""

    body_bytes: Annotated[Count, Meta(description="largest request body (413)")] = 8 * 2**20
    bodies_bytes: Annotated[
        Count, Meta(description="what the bodies of all requests may take at a time; more are refused (503)")
    ] = 256 * 2**20
    json_depth: Annotated[int, Meta(ge=1, le=200, description="deepest nesting of a JSON body (400)")] = 32
    rows: Annotated[Count, Meta(description="most samples, or rows of input, of one request (400)")] = 256
    tokens: Annotated[Count, Meta(description="most tokens one request may ask for (400)")] = 4096
    prompt_characters: Annotated[
        Count,
        Meta(description="most characters, or token ids, of a request's prompts times its choices (400)"),
    ] = 131_072
    request_timeout_s: Annotated[
        Seconds,
        Meta(description="deadline when the Request-Timeout header names none, and its largest value (504)"),
    ] = 60.0
    model_timeouts_s: Annotated[
        dict[str, Seconds],
        Meta(description="the same for single models, where it is shorter: {my-vae = 2.5}"),
    ] = {}


class Workers(Section, frozen=True):
    """The processes that compute."""

    count: Annotated[int, Meta(ge=0, description="worker processes; 0 is one per core")] = 0
    threads: Annotated[Count, Meta(description="threads each worker computes with")] = 1
    engine: Annotated[
        Literal["auto", "onnxruntime", "openvino"],
        Meta(
            description="what computes: onnxruntime, openvino, or auto: for each graph the fastest that may"
        ),
    ] = "auto"
    precision: Annotated[
        Literal["f32", "bf16", "int8", "auto"],
        Meta(description="f32, bf16 or int8 for every graph, or auto: for each the fastest within its gate"),
    ] = "f32"
    cache_precision: Annotated[
        Literal["f32", "f16", "int8"],
        Meta(description="what texts under way are remembered in: f16 takes half the memory, int8 a quarter"),
    ] = "f32"
    operators: Annotated[
        Literal["any", "standard"],
        Meta(
            description="standard: texts and codes by the step in operators of ONNX alone, as other readers"
            " compute them; slower"
        ),
    ] = "any"
    share_weights: Annotated[
        bool,
        Meta(
            description="the workers of this machine map one copy of large weights as onnxruntime packs them,"
            " from the user's cache; false: each has its own in memory"
        ),
    ] = True
    nice: Annotated[
        int,
        Meta(
            ge=0,
            le=19,
            description="by how much they give way to others for a core, first of all to the process that"
            " answers: without it, busy workers keep it waiting",
        ),
    ] = 5
    slots: Annotated[Count, Meta(description="text streams that one worker and model decode together")] = 16
    start_timeout_s: Annotated[Seconds, Meta(description="a worker not ready by then is killed")] = 60.0
    hang_timeout_s: Annotated[
        Seconds, Meta(description="a worker silent for this long at work is killed")
    ] = 30.0
    max_restarts: Annotated[
        int, Meta(ge=0, description="restarts in max_seconds before the server gives up")
    ] = 3
    max_seconds: Annotated[Seconds, Meta(description="window in which restarts are counted")] = 5.0


class Queue(Section, frozen=True):
    """Waiting and batching."""

    capacity: Annotated[Count, Meta(description="requests that may wait; more are refused (503)")] = 1024
    max_wait_s: Annotated[
        Seconds,
        Meta(
            description="while all workers are busy, a request whose answer would take longer than this, or"
            " most of the time until its deadline, is refused (503)"
        ),
    ] = 3.0
    batch_size: Annotated[Count, Meta(description="most rows computed together")] = 64
    batch_timeout_s: Annotated[
        float, Meta(ge=0, le=LONGEST_S, description="longest wait for company while every worker is busy")
    ] = 0.02
    max_deliveries: Annotated[Count, Meta(description="tries of a request whose worker dies each time")] = 3


class Jobs(Section, frozen=True):
    """Work that is kept safe and done later."""

    path: Annotated[
        str,
        Meta(
            description="file that keeps jobs; `memory` keeps them for the life of the node only; empty is"
            " jobs-PORT.db in the user's state folder, or `memory` when the port is 0"
        ),
    ] = ""
    broker: Annotated[
        str,
        Meta(
            description="amqp://USER:PASSWORD@HOST/VHOST of a RabbitMQ: servers that name it do each other's"
            " jobs; empty: jobs stay on this machine"
        ),
    ] = ""
    capacity: Annotated[Count, Meta(description="jobs that may wait; more are refused (503)")] = 100_000
    in_flight: Annotated[Count, Meta(description="jobs under way at a time")] = 32
    lease_s: Annotated[
        Seconds, Meta(description="a job whose worker says nothing for this long is handed out again")
    ] = 60.0
    timeout_s: Annotated[Seconds, Meta(description="a job not done this long after its start fails")] = 600.0
    max_deliveries: Annotated[
        Count, Meta(description="a job handed out this often without an end is dead")
    ] = 3
    retention_s: Annotated[Seconds, Meta(description="results are kept for this long")] = 86_400.0
    size_bytes: Annotated[Count, Meta(description="largest size of the file (507)")] = 8 * 2**30


class Drain(Section, frozen=True):
    """The way down after SIGTERM."""

    delay_s: Annotated[
        float,
        Meta(
            ge=0, le=LONGEST_S, description="this long readiness says 503 and each answer ends its connection"
        ),
    ] = 0.5
    shutdown_s: Annotated[Seconds, Meta(description="accepted requests must be answered within this")] = 30.0


class Settings(Section, frozen=True):
    """All of them."""

    http: Http = Http()
    grpc: Grpc = Grpc()
    limits: Limits = Limits()
    workers: Workers = Workers()
    queue: Queue = Queue()
    jobs: Jobs = Jobs()
    drain: Drain = Drain()
    log: Annotated[Literal["text", "json"], Meta(description="how log lines look")] = "text"


def read_settings(config: Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """The settings of a TOML file (or the defaults), with `section.key=value` overrides on top.

    Raises: ConfigError that names the file or flag, the setting, and what would have been valid.

    >>> read_settings(overrides=["queue.capacity=8"]).queue.capacity
    8
    """
    tree = _read_toml(config) if config else {}
    _check_names(tree, Settings, str(config))
    for override in overrides:
        _set(tree, override)
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        raise ConfigError(
            problem,
            where=path.rstrip("`") or str(config),
            remedy="`triptych serve --print-config` shows all settings",
        ) from error
    _check_secrets(settings)
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path)) from error


def _check_names(tree: dict[str, Any], section: type[Section], where: str) -> None:
    hints = get_type_hints(section)
    for key, value in tree.items():
        if key not in hints:
            valid = section.__struct_fields__
            raise ConfigError(
                f"unknown setting `{key}`", where=where, valid=", ".join(valid), remedy=nearest(key, valid)
            )
        if isinstance(hints[key], type) and issubclass(hints[key], Section):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"`{key}` is a section", where=where, valid=f"[{key}] with settings below it"
                )
            _check_names(value, hints[key], f"{where} [{key}]")


def _check_secrets(settings: Settings) -> None:
    for name in Settings.__struct_fields__:
        for key in SECRET:
            if getattr(getattr(settings, name), key, "") == HIDDEN:
                raise ConfigError(
                    f"got `{HIDDEN}`, which stands for a secret that was not shown",
                    where=f"{name}.{key}",
                    remedy="write the secret there, or remove the line",
                )


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"got `{override}`", where="--set", valid="section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = path.strip().split(".")
    wanted: dict[str, Any] = {key: value}
    for name in reversed(sections):
        wanted = {name: wanted}
    _check_names(wanted, Settings, "--set")
    for name in sections:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"got `{override}`, but `{name}` has a value already", where="--set")
    tree[key] = value
