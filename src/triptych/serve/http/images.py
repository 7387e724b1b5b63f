"""`POST /v1/images/generations`, as OpenAI's clients call it: pictures of any model that draws some."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from msgspec import Meta

from triptych.bundle.condition import LABEL, row_labels
from triptych.bundle.pictures import is_image
from triptych.errors import InputError
from triptych.serve.catalog import Model
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.native import check_limit, queue
from triptych.serve.http.schemas import Body, Seed, new_seed
from triptych.serve.work import IMAGES, JSON, SampleWork

MAX_DIGITS = 18  # of a label


class ImagesBody(Body, frozen=True):
    """`POST /v1/images/generations`, as OpenAI describes it; `seed` is an addition."""

    model: str
    prompt: Annotated[
        str, Meta(description="the label, for a model that takes one; empty draws each class in turn")
    ] = ""
    n: Annotated[int, Meta(ge=1)] | None = None
    size: Annotated[str, Meta(description='the model\'s own, such as "28x28", or "auto"')] | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    seed: Seed | None = None
    user: str | None = None


def generate(exchange: Exchange) -> None:
    """`POST /v1/images/generations`: `n` pictures of `model`, each a PNG in base64."""
    body = exchange.whole_json(ImagesBody)
    gateway = exchange.gateway
    model = exchange.find(body.model)
    check_size(model, body.size)
    n = body.n or 1
    check_limit("n", n, gateway.settings.limits.rows)
    labels = row_labels(as_condition(model, body.prompt), n, model.manifest.sampler.classes)
    seed = new_seed() if body.seed is None else body.seed
    headers = [*model.headers, (b"triptych-seed", b"%d" % seed)]
    reply = partial(exchange.reply, 200, content_type=JSON, headers=headers)
    queue(exchange, SampleWork(model.name, n, seed, IMAGES, labels), n, (model.name, "sample"), reply)


def check_size(model: Model, size: str | None) -> None:
    """Raise InputError unless the model draws pictures, and of this size."""
    shape = model.manifest.sample.shape
    if model.is_text or not is_image(shape):
        remedy = f"use /v1/{'completions' if model.is_text else f'models/{model.name}/sample'}"
        raise InputError(f"`{model.name}` draws no pictures", where="model", remedy=remedy)
    own = f"{shape[-1]}x{shape[-2]}"
    if size not in (None, "auto", own):
        raise InputError(f"got {size!r}", where="size", valid=f"auto or {own}")


def as_condition(model: Model, prompt: str) -> dict[str, int] | None:
    """What a prompt asks a conditional model for; to others it says nothing and has to be empty."""
    if not prompt.strip():
        return None
    classes = model.manifest.sampler.classes
    if classes is None:
        raise InputError(
            "would have no effect: this model takes no condition", where="prompt", valid="an empty text"
        )
    label = prompt.strip()
    if not label.isdecimal() or len(label) > MAX_DIGITS:
        raise InputError(f"got {prompt[:80]!r}", where="prompt", valid=f"a label from 0 to {classes - 1}")
    return {LABEL: int(label)}
