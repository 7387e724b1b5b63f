"""What the node asks of a worker, and what a worker answers: msgpack on the socket between them."""

from __future__ import annotations

import msgspec

from triptych.bundle.continuation import Continuation
from triptych.serve.kserve import Inference


class Work(msgspec.Struct, frozen=True, array_like=True, tag_field="op"):
    """Base of the requests a worker answers; `model` names one of the bundles it has loaded."""

    model: str


class SampleWork(Work, frozen=True, tag="sample"):
    """Draw `n` samples of `seed` and write them as `accept`, a media type. The answer is the HTTP body.

    `labels` are those of a conditional model, one per sample. `inference` says what a `KSERVE` answer holds.
    """

    n: int
    seed: int
    accept: str
    labels: list[int] | None = None
    inference: Inference | None = None


class RunWork(Work, frozen=True, tag="run"):
    """Run `graph` on the inputs in `body` (JSON or npy: `content_type`). The answer is the HTTP body.

    `rows` is how many the node counted; of an npy body it saw the header alone.
    """

    graph: str
    content_type: str
    body: bytes
    accept: str
    rows: int


class InferWork(Work, frozen=True, tag="infer"):
    """Run `graph` on tensors of the V2 protocol. The answer is packed by `triptych.serve.kserve`."""

    graph: str
    inference: Inference


class ProbeWork(Work, frozen=True, tag="probe"):
    """Compute one small real batch, to prove that the worker still can. The answer is empty."""


class FingerprintWork(Work, frozen=True, tag="fingerprint"):
    """Say how this machine computes the model; the answer is `fingerprint`'s digest."""


class TextWork(Work, frozen=True, tag="text"):
    """Go on from a prompt. A stream: the answer is a sequence of lists of `TextPiece`."""

    request: Continuation


class TextPiece(msgspec.Struct, frozen=True, array_like=True):
    """One token of a continuation: its text may be empty while it is held back.

    The last one has a `finish_reason`, and says how many tokens the prompt had. `top` are the likeliest
    tokens at its place, their texts and log-probabilities. Tokens of an echoed prompt come first;
    where they are not scored, as one piece.
    """

    text: str
    token_id: int
    logprob: float | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    top: tuple[tuple[str, float], ...] = ()
    is_prompt: bool = False


AnyWork = SampleWork | RunWork | InferWork | ProbeWork | FingerprintWork | TextWork

JSON, NPY, PNG, TEXT = "application/json", "application/x-npy", "image/png", "text/plain"
EVENTS = "text/event-stream"
IMAGES = "images"  # the JSON of OpenAI's image routes
KSERVE = "kserve"  # packed by `triptych.serve.kserve`: JSON, and what follows it
