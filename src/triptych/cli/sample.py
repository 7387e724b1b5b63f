"""`triptych sample`: samples of a bundle, as a picture, an array or text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import text_settings as flags

if TYPE_CHECKING:
    from triptych.infer import Engine

ENDINGS = (".png", ".npy", ".txt")
SAMPLES, MAX_PIXELS = 16, 2**25  # a picture of more is of no use to anybody
RULE = "\n\n---\n\n"

Bundle = Annotated[Path, typer.Argument(help="A bundle's folder.")]
Out = Annotated[Path, typer.Option("--out", help="Where to: a file ending in .png, .npy or .txt.")]
Count = Annotated[int | None, typer.Option("--n", help=f"How many samples; {SAMPLES} if not given.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same bytes; 0 if not given.")]
Condition = Annotated[
    str | None,
    typer.Option(
        help="Conditional models: JSON such as '{\"label\": 3}', or a list of labels in place of 3."
    ),
]
EngineName = Annotated[str, typer.Option("--engine", help="What computes: auto, onnxruntime or openvino.")]
Precision = Annotated[str, typer.Option(help="f32, bf16, int8, or auto: the fastest that is allowed.")]
CachePrecision = Annotated[str, typer.Option(help="Text: what it is remembered in, f32, f16 or int8.")]
Operators = Annotated[
    str, typer.Option(help="Text and codes: standard is by operators of ONNX alone, slower; any.")
]


def sample(
    bundle: Bundle,
    out: Out,
    n: Count = None,
    seed: Seed = None,
    condition: Condition = None,
    prompt: flags.Prompt = None,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = None,
    top_k: flags.TopK = None,
    top_p: flags.TopP = None,
    min_p: flags.MinP = None,
    repetition_penalty: flags.RepetitionPenalty = None,
    frequency_penalty: flags.FrequencyPenalty = None,
    presence_penalty: flags.PresencePenalty = None,
    stop: flags.Stop = None,
    engine_name: EngineName = "auto",
    precision: Precision = "f32",
    cache_precision: CachePrecision = "f32",
    operators: Operators = "any",
) -> None:
    """Draw samples and write them to a file."""
    from triptych.infer import load

    text = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "stop": tuple(stop) if stop else None,
    }
    check_settings(out, n, seed, text)
    count = n or (1 if temperature == 0 else SAMPLES)
    with load(
        bundle, engine_name, precision=precision, cache_precision=cache_precision, operators=operators
    ) as engine:
        write(engine, out, count, seed or 0, condition, text)
    print(f"{count} {'sample' if count == 1 else 'samples'} written to {out}")


def check_settings(out: Path, n: int | None, seed: int | None, text: Mapping[str, Any]) -> None:
    """Raise for an ending that is not known, no samples, and settings of `text` without effect."""
    from triptych.errors import ConfigError, InputError

    if out.suffix not in ENDINGS:
        raise ConfigError(f"got {out.name!r}", where="--out", valid=f"a file ending in {', '.join(ENDINGS)}")
    if n is not None and n < 1:
        raise InputError(f"got {n}", where="--n", valid="an integer from 1")
    if out.suffix == ".txt":
        flags.check_text_settings(text, n, seed)
    else:
        flags.refuse_text_settings(text)


def write(
    engine: Engine, out: Path, n: int, seed: int, condition: str | None, text: Mapping[str, Any]
) -> None:
    """Draw `n` samples, and write them as the ending of `out` says."""
    if out.suffix == ".txt":
        refuse_without_text(engine)
        refuse_condition(condition)
        write_texts(engine, out, n, seed, text)
    elif out.suffix == ".npy":
        from triptych.cli.npy_stream import write_npy

        given = parsed(condition)
        with writing(out):
            write_npy(engine, out, n, seed, given)
    else:
        content = picture(engine, n, seed, parsed(condition))
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(content)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A file that cannot be written is a DataError."""
    from triptych.errors import DataError

    try:
        yield
    except OSError as error:
        raise DataError(f"cannot be written ({error.strerror})", where=str(out)) from error


def write_texts(engine: Engine, out: Path, n: int, seed: int, given: Mapping[str, Any]) -> None:
    """Write `n` continuations of a prompt, set apart by rules when there are several; `given` are fields of
    `GenerationRequest`, None where the default holds.
    """
    from triptych.cli.text_stream import texts
    from triptych.cli.whole_file import whole_file

    settings: dict[str, Any] = {"prompt": "", "max_tokens": flags.MAX_TOKENS}
    settings |= {name: value for name, value in given.items() if value is not None}
    with writing(out), whole_file(out) as file:
        for number, text in enumerate(texts(engine, n, seed, settings)):
            file.write((RULE * (number > 0) + text).encode())
        file.write(b"\n")


def picture(engine: Engine, n: int, seed: int, condition: object | None) -> bytes:
    """`n` samples as a PNG grid."""
    from triptych.bundle.pictures import is_image, png
    from triptych.errors import InputError

    shape = engine.manifest.sample.shape
    if not is_image(shape):
        name = engine.manifest.name
        raise InputError(
            "its samples are no pictures", where=name, valid="a file ending in .npy, or .txt for text"
        )
    if n > (most := MAX_PIXELS // math.prod(map(int, shape[-2:]))):
        valid, remedy = f"up to {most} in one picture", "a file ending in .npy takes any number"
        raise InputError(f"got {n}", where="--n", valid=valid, remedy=remedy)
    return png(engine.sample(n, seed=seed, condition=condition))


def refuse_without_text(engine: Engine) -> None:
    """Only text models write text."""
    from triptych.bundle.manifest import TextSampler
    from triptych.errors import InputError

    if not isinstance(engine.manifest.sampler, TextSampler):
        name = engine.manifest.name
        raise InputError("it does not generate text", where=name, valid="a file ending in .png or .npy")


def parsed(condition: str | None) -> object | None:
    """The JSON of a condition, or None."""
    import json

    from triptych.errors import InputError

    if condition is None:
        return None
    try:
        return json.loads(condition)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InputError(
            f"got {condition!r}", where="--condition", valid="""JSON, such as '{"label": 3}'"""
        ) from error


def refuse_condition(condition: str | None) -> None:
    """A text goes on from a prompt, so a condition has no effect there."""
    from triptych.errors import ConfigError

    if condition is not None:
        raise ConfigError("has no effect here", where="--condition", remedy="for text use --prompt")
