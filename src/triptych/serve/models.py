"""What runs in a worker: the engines of every bundle, and the work of many requests done in one call."""

from __future__ import annotations

import signal
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import msgspec
import numpy as np

from triptych.bundle import pictures
from triptych.bundle.manifest import TextSampler
from triptych.errors import BundleRefused, InputError
from triptych.infer import DecodeLoop, Engine, GenerationRequest, TokenEvent, load
from triptych.infer.decoding import prompt_tokens
from triptych.serve.bodies import as_json, as_npy, from_json, from_npy
from triptych.serve.fingerprint import fingerprint
from triptych.serve.supervise.failure import Failure
from triptych.serve.supervise.worker import StreamEvent
from triptych.serve.tensors import read_tensor, write_tensors
from triptych.serve.work import (
    IMAGES,
    NPY,
    PNG,
    AnyWork,
    FingerprintWork,
    InferWork,
    ProbeWork,
    RunWork,
    SampleWork,
    TextPiece,
    TextWork,
)

Array = np.ndarray
Answer = bytes | Failure


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker is told at its start; `bundles` maps each folder to the version that it must hold."""

    bundles: dict[str, str]
    engine: str = "auto"
    precision: str = "f32"
    cache_precision: str = "f32"
    operators: str = "any"
    threads: int = 1
    share_weights: bool = False
    slots: int = 16


def handler(settings: dict[str, Any]) -> ModelHandler:
    """The factory that `WorkerPool` calls in each worker process.

    SIGTERM often goes to every process of a service at once: a worker leaves it to the node, which lets held
    work finish and then closes the channel.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wanted = msgspec.convert(settings, WorkerSettings)
    engines = [
        load(
            folder,
            engine=wanted.engine,
            threads=wanted.threads,
            precision=wanted.precision,
            cache_precision=wanted.cache_precision,
            operators=wanted.operators,
            share_weights=wanted.share_weights,
        )
        for folder in wanted.bundles
    ]
    for engine, (folder, version) in zip(engines, wanted.bundles.items(), strict=True):
        if engine.manifest.version != version:
            raise BundleRefused(
                f"it holds version {engine.manifest.version}, and {version} is being served",
                where=folder,
                remedy="have the server take it over with `triptych swap`",
            )
    return ModelHandler({engine.manifest.name: engine for engine in engines}, wanted.slots)


class Text(NamedTuple):
    """An open stream: its model, its id in the model's loop, and the length of its prompt."""

    model: str
    id: int
    prompt_tokens: int


class ModelHandler:
    """Answers samples and graph runs in batches, and continues texts token by token."""

    def __init__(self, engines: Mapping[str, Engine], slots: int = 16) -> None:
        self._engines = engines
        self._decode = msgspec.msgpack.Decoder(AnyWork).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._loops: dict[str, DecodeLoop] = {
            name: engine.decode_loop(slots)
            for name, engine in engines.items()
            if isinstance(engine.manifest.sampler, TextSampler)
        }
        self._streams: dict[int, Text] = {}
        self._readers: dict[tuple[str, int], int] = {}

    def handle_batch(self, payloads: list[bytes]) -> list[Answer]:
        """Answer each payload; those of one model and operation share one engine call."""
        works = [self._decode(payload) for payload in payloads]
        answers: dict[int, Answer] = {}
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, work in enumerate(works):
            groups[work.model, getattr(work, "graph", type(work).__name__)].append(number)
        for numbers in groups.values():
            group = [works[number] for number in numbers]
            answers.update(zip(numbers, self._answer(self._engines[group[0].model], group), strict=True))
        return [answers[number] for number in range(len(works))]

    def _answer(self, engine: Engine, group: Sequence[Any]) -> list[Answer]:
        if isinstance(group[0], SampleWork):
            return sample(engine, group)
        if isinstance(group[0], RunWork | InferWork):
            return run(engine, group)
        if isinstance(group[0], FingerprintWork):
            return [fingerprint(engine)] * len(group)
        probe(engine)
        return [b""] * len(group)

    def open_stream(self, stream_id: int, payload: bytes) -> None:
        """Let a text join the loop of its model."""
        work = self._decode(payload)
        if not isinstance(work, TextWork):
            raise InputError(f"got {type(work).__name__}", where="stream", valid="TextWork")
        request = GenerationRequest(**msgspec.structs.asdict(work.request))
        inner = self._loops[work.model].add(request)
        length = len(prompt_tokens(self._engines[work.model].tokenizer, request))
        self._streams[stream_id] = Text(work.model, inner, length)
        self._readers[work.model, inner] = stream_id

    def step(self) -> list[StreamEvent]:
        """One token for every open text; a model that fails ends its own texts alone."""
        events: list[StreamEvent] = []
        for model, loop in self._loops.items():
            try:
                made = loop.step() if len(loop) else []
            except Exception as error:
                failure = Failure.of(error)
                for stream_id in [id for id, text in self._streams.items() if text.model == model]:
                    self.close_stream(stream_id)
                    events.append(StreamEvent(stream_id, done=True, failure=failure))
            else:
                for (id, _), together in groupby(made, lambda event: (event.id, event.is_prompt)):
                    events.append(self._event(model, id, list(together)))
        return events

    def _event(self, model: str, id: int, made: Sequence[TokenEvent]) -> StreamEvent:
        """What the node is told of a text's token, of an echoed prompt in one, or of a text that failed."""
        stream_id, last = self._readers[model, id], made[-1]
        length = self._streams[stream_id].prompt_tokens
        done = last.finish_reason is not None or last.error is not None
        if done:
            self._forget(stream_id)
        if last.error is not None:
            return StreamEvent(stream_id, done=True, failure=Failure.of(last.error))
        pieces = joined([as_piece(event, length, self._engines[model]) for event in made])
        return StreamEvent(stream_id, self._encode(pieces), done)

    def close_stream(self, stream_id: int) -> None:
        """Free the slot of a text nobody reads any more."""
        if stream_id in self._streams:
            text = self._forget(stream_id)
            self._loops[text.model].cancel(text.id)

    def close(self) -> None:
        """Let go of the engines."""
        for engine in self._engines.values():
            engine.close()

    def _forget(self, stream_id: int) -> Text:
        text = self._streams.pop(stream_id)
        del self._readers[text.model, text.id]
        return text


def joined(pieces: list[TextPiece]) -> list[TextPiece]:
    """An echoed prompt as one piece, if nobody asked about its tokens; else `pieces` as they are."""
    if not pieces[0].is_prompt or any(piece.logprob is not None for piece in pieces):
        return pieces
    return [msgspec.structs.replace(pieces[-1], text="".join(piece.text for piece in pieces))]


def as_piece(event: TokenEvent, prompt_tokens: int, engine: Engine) -> TextPiece:
    """What the node is told of a token."""
    return TextPiece(
        event.text,
        event.token_id,
        event.logprob,
        event.finish_reason,
        0 if event.finish_reason is None else prompt_tokens,
        tuple((engine.tokenizer.decode([token]), logprob) for token, logprob in event.top),
        event.is_prompt,
    )


def sample(engine: Engine, works: Sequence[SampleWork]) -> list[Answer]:
    """The samples of several requests from one call; each request's rows depend on its own seed and labels
    alone.
    """
    seeds = [work.seed for work in works for _ in range(work.n)]
    indices = [index for work in works for index in range(work.n)]
    labels = [label for work in works for label in work.labels or ()]
    rows = engine.sample_rows(seeds, indices, labels or None)
    answers, start = [], 0
    for work in works:
        mine = rows[start : start + work.n]
        start += work.n
        answers.append(attempt(partial(write_samples, engine, work, mine)))
    return answers


def write_samples(engine: Engine, work: SampleWork, samples: Array) -> bytes:
    """One request's samples in the form it accepts."""
    if work.accept == NPY:
        return as_npy(samples)
    if work.accept == PNG:
        return pictures.png(samples)
    if work.accept == IMAGES:
        return write_images(samples)
    manifest = engine.manifest
    if work.inference is not None:
        return write_tensors(
            work.inference,
            {"samples": samples},
            model=manifest.name,
            version=manifest.version,
            more={"seed": work.seed},
        )
    return as_json(
        {
            "model": manifest.name,
            "version": manifest.version,
            "seed": work.seed,
            "shape": samples.shape,
            "samples": np.ascontiguousarray(samples),
        }
    )


def write_images(samples: Array) -> bytes:
    """Each sample as a PNG of its own, in base64."""
    images = [b64encode(pictures.png(samples[i : i + 1])).decode() for i in range(len(samples))]
    return as_json({"created": int(time.time()), "data": [{"b64_json": image} for image in images]})


def run(engine: Engine, works: Sequence[RunWork | InferWork]) -> list[Answer]:
    """Run one graph for several requests; those whose rows have one shape share a call."""
    graph = engine.graph(works[0].graph)
    # Without buckets rows may depend on their neighbours, and a scalar is for all rows of its own request.
    are_rows = bool(graph.row_buckets) and all(spec.shape for spec in graph.inputs)
    answers: dict[int, Answer] = {}
    shapes: dict[tuple[Any, ...], list[tuple[int, dict[str, Array]]]] = defaultdict(list)
    for number, work in enumerate(works):
        try:
            inputs = engine.check(graph.name, read_inputs(work))
            check_rows(work, inputs)
        except InputError as error:
            answers[number] = Failure.of(error)
            continue
        alone = () if are_rows else (number,)
        shapes[alone + tuple(array.shape[1:] for array in inputs.values())].append((number, inputs))
    for members in shapes.values():
        together = members[0][1]
        if len(members) > 1:
            together = {name: np.concatenate([inputs[name] for _, inputs in members]) for name in together}
        outputs, start = engine.run_rows(graph.name, together), 0
        for number, inputs in members:
            stop = start + len(next(iter(inputs.values())))
            mine = {name: array[start:stop] for name, array in outputs.items()}
            answers[number] = attempt(partial(write_outputs, engine, works[number], mine))
            start = stop
    return [answers[number] for number in range(len(works))]


def read_inputs(work: RunWork | InferWork) -> dict[str, Any]:
    """The inputs of a request: tensors, JSON lists by name, or one array whose name the node put in front."""
    if isinstance(work, InferWork):
        return {part.name: read_tensor(part) for part in work.inference.inputs}
    if work.content_type == NPY:
        name, _, body = work.body.partition(b"\n")
        return {name.decode(): from_npy(body)}
    inputs: dict[str, Any] = from_json(work.body, "inputs")
    return inputs


def check_rows(work: RunWork | InferWork, inputs: Mapping[str, Array]) -> None:
    """Raise InputError for an npy body of other rows than the node saw in its header, and held to limits."""
    rows = len(next(iter(inputs.values())))
    if isinstance(work, RunWork) and work.content_type == NPY and rows != work.rows:
        raise InputError(f"has {rows} rows, and its header spoke of {work.rows}", where="body")


def write_outputs(engine: Engine, work: RunWork | InferWork, outputs: Mapping[str, Array]) -> bytes:
    """One request's outputs in the form it accepts."""
    manifest = engine.manifest
    if isinstance(work, InferWork):
        return write_tensors(work.inference, outputs, model=manifest.name, version=manifest.version, more={})
    if work.accept == NPY:
        return as_npy(next(iter(outputs.values())))
    arrays = {
        name: {"shape": array.shape, "values": np.ascontiguousarray(array)} for name, array in outputs.items()
    }
    return as_json(
        {
            "model": manifest.name,
            "version": manifest.version,
            "graph": work.graph,
            "outputs": arrays,
        }
    )


def attempt(write: Callable[[], bytes]) -> Answer:
    """What `write` returns, or the failure that stands for what it raised."""
    try:
        return write()
    except Exception as error:
        return Failure.of(error)


def probe(engine: Engine) -> None:
    """Compute something small and real."""
    if isinstance(engine.manifest.sampler, TextSampler):
        engine.generate((0,), max_tokens=1, temperature=0.0)
    else:
        engine.sample(1, seed=0)


__all__ = ["ModelHandler", "ProbeWork", "WorkerSettings", "handler"]
