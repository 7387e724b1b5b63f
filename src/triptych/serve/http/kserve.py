"""The V2 inference protocol over HTTP, with the binary tensor extension: `tritonclient` works against it."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

import msgspec

from triptych import __version__
from triptych.bundle.condition import row_labels
from triptych.bundle.manifest import CodeSampler, GraphRecord, LatentSampler, TextSampler
from triptych.errors import InputError, NotFoundError
from triptych.serve import kserve
from triptych.serve.catalog import Model
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.json_body import parse
from triptych.serve.http.native import check_limit, queue, watch_task
from triptych.serve.http.openai import as_works
from triptych.serve.http.refusal import Headers, encode
from triptych.serve.http.schemas import CompletionBody, SampleBody, new_seed
from triptych.serve.http.streaming import collect
from triptych.serve.kserve import InferBody
from triptych.serve.settings_shown import shown
from triptych.serve.work import JSON, KSERVE, InferWork, SampleWork

OCTETS = "application/octet-stream"
LENGTH = b"inference-header-content-length"
MAX_DIGITS = 18
SAMPLE = "sample"
TIMEOUT, MICROSECONDS, MAX_TIMEOUT = "timeout", 1e-6, 2**63 - 1
FORM_PARAMETERS = ("graph", "binary_data_output", TIMEOUT)  # what says how, not what
TEXT_INPUT = {"name": "text_input", "datatype": kserve.BYTES, "shape": [-1]}
TEXT_OUTPUT = {"name": "text_output", "datatype": kserve.BYTES, "shape": [-1]}
EXTENSIONS = ["binary_tensor_data", "model_repository"]


async def server(exchange: Exchange) -> None:
    """`GET /v2`: name, version and extensions, and the settings in effect."""
    settings = shown(exchange.gateway.settings)
    body = {"name": "triptych", "version": __version__, "extensions": EXTENSIONS, "settings": settings}
    await exchange.answer(200, encode(body), JSON, [])


async def live(exchange: Exchange) -> None:
    """`GET /v2/health/live`: the node's event loop turns."""
    await exchange.answer(200, encode({"live": True}), JSON, [])


async def ready(exchange: Exchange) -> None:
    """`GET /v2/health/ready`: a worker computed a real batch of every model just now; else 503."""
    is_ready = exchange.gateway.is_ready(await exchange.gateway.probe())
    await exchange.answer(200 if is_ready else 503, encode({"ready": is_ready}), JSON, [])


async def model_ready(exchange: Exchange, name: str, version: str = "") -> None:
    """`GET /v2/models/{model}/ready`: the same, of a model that is served."""
    find(exchange, name, version)
    is_ready = exchange.gateway.is_ready(await exchange.gateway.probe())
    await exchange.answer(200 if is_ready else 503, encode({"name": name, "ready": is_ready}), JSON, [])


async def show_model(exchange: Exchange, name: str, version: str = "") -> None:
    """`GET /v2/models/{model}`: inputs and outputs of its main graph, and of every other one."""
    model = find(exchange, name, version)
    graphs = {graph.name: described(graph) for graph in model.graphs.values()}
    sampler = model.manifest.sampler
    match sampler:
        case LatentSampler(graph=name) | CodeSampler(decode_graph=name):
            main = graphs[name]
        case TextSampler():
            main = {"inputs": [TEXT_INPUT], "outputs": [TEXT_OUTPUT]}
    body = {
        "name": model.name,
        "versions": [model.version],
        "platform": "triptych_onnx",
        **main,
        "graphs": graphs,
    }
    await exchange.answer(200, encode(body), JSON, model.headers)


async def index(exchange: Exchange) -> None:
    """`POST /v2/repository/index`: the models that are served."""
    models = exchange.gateway.catalog.values()
    body = [
        {"name": model.name, "version": model.version, "state": "READY", "reason": ""} for model in models
    ]
    await exchange.answer(200, encode(body), JSON, [])


async def load(exchange: Exchange, name: str) -> None:
    """`POST /v2/repository/models/{model}/load`: take over what has become of the bundles, under load.

    All bundles are read anew, in new workers beside those that serve. Nothing changes unless they prove
    themselves; requests that were accepted before are answered by the old ones.
    """
    gateway = exchange.gateway
    before = gateway.catalog.find(name).version
    await gateway.swap()
    versions = {model.name: model.version for model in gateway.catalog.values()}
    body = {"name": name, "before": before, "version": versions[name], "versions": versions}
    await exchange.answer(200, encode(body), JSON, [])


def infer(exchange: Exchange, name: str, version: str = "") -> Awaitable[None] | None:
    """`POST /v2/models/{model}/infer`: run a graph, draw samples (without inputs), or continue texts.

    The graph is `parameters.graph`, or the one whose inputs are those of the request. Without inputs it is
    `sample`, whose parameters are those of `/v1/models/{model}/sample`; `text_input` is a prompt, whose
    parameters are those of `/v1/completions`.
    """
    model = find(exchange, name, version)
    body, binary = read_body(exchange)
    read_timeout(exchange, body.parameters)
    names = [part.name for part in body.inputs]
    if model.is_text and names == [TEXT_INPUT["name"]]:
        return continue_texts(exchange, name, version, body, binary)
    if not names and body.parameters.get("graph", SAMPLE) == SAMPLE and not model.is_text:
        draw(exchange, model, body)
    else:
        run(exchange, model, choose(model, names, body.parameters), body, binary)
    return None


def read_body(exchange: Exchange) -> tuple[InferBody, bytes]:
    """The JSON of a request, and the binary values behind it."""
    exchange.content_type((JSON, OCTETS))
    whole, depth = exchange.whole_body(), exchange.gateway.settings.limits.json_depth
    length = exchange.headers.get(LENGTH)
    if length is not None and (not length.isdigit() or len(length) > MAX_DIGITS or int(length) > len(whole)):
        got, valid = length.decode("latin-1"), f"at most the body's {len(whole)} bytes"
        raise InputError(f"got `{got}`", where="Inference-Header-Content-Length", valid=valid)
    size = len(whole) if length is None else int(length)
    return parse(whole[:size], InferBody, depth), whole[size:]


def read_timeout(exchange: Exchange, parameters: kserve.Parameters) -> None:
    """Take over the deadline of `parameters.timeout`, which clients of the protocol give in microseconds."""
    given = parameters.get(TIMEOUT)
    if given is None:
        return
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= MAX_TIMEOUT:
        where, valid = f"parameters.{TIMEOUT}", "a whole number of microseconds above 0, of 64 bits"
        raise InputError(f"got {given!r}", where=where, valid=valid)
    exchange.deadline_s = min(exchange.deadline_s, exchange.arrived_at_s + given * MICROSECONDS)


def choose(model: Model, names: list[str], parameters: kserve.Parameters) -> GraphRecord:
    """The graph that is meant."""
    if (wanted := parameters.get("graph")) is not None:
        return model.graph(str(wanted))
    for graph in model.graphs.values():
        if sorted(names) == sorted(spec.name for spec in graph.inputs):
            return graph
    valid = "; ".join(
        f"{graph.name}: {', '.join(spec.name for spec in graph.inputs)}" for graph in model.graphs.values()
    )
    raise InputError(f"no graph takes {', '.join(names) or 'none'}", where="inputs", valid=valid)


def run(exchange: Exchange, model: Model, graph: GraphRecord, body: InferBody, binary: bytes) -> None:
    """Run a graph on the inputs."""
    known_parameters(body, ())
    inference = kserve.as_inference(body, binary, [spec.name for spec in graph.outputs])
    rows = max(1, body.inputs[0].shape[0]) if body.inputs and body.inputs[0].shape else 1
    check_limit("rows", rows, exchange.gateway.settings.limits.rows)
    work = InferWork(model.name, graph.name, inference)
    queue(exchange, work, rows, (model.name, graph.name), partial(reply, exchange, headers=model.headers))


def draw(exchange: Exchange, model: Model, body: InferBody) -> None:
    """Draw samples, as `POST /v1/models/{model}/sample` does."""
    known_parameters(body, SampleBody.__struct_fields__)
    wanted = convert(body, SampleBody)
    check_limit("n", wanted.n, exchange.gateway.settings.limits.rows)
    labels = row_labels(wanted.condition, wanted.n, model.manifest.sampler.classes)
    seed = new_seed() if wanted.seed is None else wanted.seed
    inference = kserve.as_inference(body, b"", ["samples"])
    headers: Headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    work = SampleWork(model.name, wanted.n, seed, KSERVE, labels, inference)
    queue(exchange, work, wanted.n, (model.name, SAMPLE), partial(reply, exchange, headers=headers))


async def continue_texts(exchange: Exchange, name: str, version: str, body: InferBody, binary: bytes) -> None:
    """Continue each prompt of `text_input`, as `POST /v1/completions` does."""
    model = find(exchange, name, version)  # of the generation that makes them, which is that of now
    inference = kserve.as_inference(body, binary, [str(TEXT_OUTPUT["name"])])
    prompts = kserve.texts(inference.inputs[0])
    known_parameters(body, TEXT_PARAMETERS)
    wanted = convert(body, CompletionBody, model=model.name)
    seed = new_seed() if wanted.seed is None else wanted.seed
    works = as_works(exchange, wanted, prompts, seed)
    watch_task(exchange)
    made = [choice.text for choice in await collect(exchange, works)]
    output: dict[str, Any] = {**TEXT_OUTPUT, "shape": [len(made)]}
    values = b""
    if inference.is_binary[0]:
        values = kserve.joined([text.encode() for text in made])
        output["parameters"] = {"binary_data_size": len(values)}
    else:
        output["data"] = made
    head = {"model_name": model.name, "model_version": model.version, "outputs": [output]}
    if body.id:
        head["id"] = body.id
    headers: Headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    reply(exchange, kserve.pack(encode(head), values), headers)


TEXT_PARAMETERS = tuple(
    name
    for name in CompletionBody.__struct_fields__
    if name not in ("model", "prompt", "n", "best_of", "echo", "logprobs", "stream", "stream_options", "user")
)


def known_parameters(body: InferBody, names: tuple[str, ...]) -> None:
    """Raise InputError for a parameter of the request that is not one of `names`, nor says how."""
    valid = (*names, *FORM_PARAMETERS)
    for name in body.parameters:
        if name not in valid:
            raise InputError("is not known here", where=f"parameters.{name}", valid=", ".join(valid))


def convert(body: InferBody, kind: type[Any], **more: Any) -> Any:
    """The parameters of a request as the body of another route."""
    fields = {name: value for name, value in body.parameters.items() if name not in FORM_PARAMETERS}
    try:
        return msgspec.convert({**fields, **more}, kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise InputError(problem, where=f"parameters{path.rstrip('`')}") from error


def reply(exchange: Exchange, packed: bytes, headers: Headers) -> None:
    """Send a packed answer: JSON alone, or JSON and binary values with the header that tells them apart."""
    length, body = kserve.unpack(packed)
    if length == len(body):
        exchange.reply(200, body, JSON, headers)
    else:
        exchange.reply(200, body, OCTETS, [*headers, (LENGTH, b"%d" % length)])


def find(exchange: Exchange, name: str, version: str) -> Model:
    """The model of that name, and of that version if one is named."""
    model = exchange.gateway.catalog.find(name)
    if version not in ("", model.version):
        raise NotFoundError(
            f"model `{name}` has no version `{version}`", where="version", valid=model.version
        )
    return model


def described(graph: GraphRecord) -> dict[str, Any]:
    """The inputs and outputs of a graph."""
    return {
        "inputs": [kserve.tensor(spec) for spec in graph.inputs],
        "outputs": [kserve.tensor(spec) for spec in graph.outputs],
    }
