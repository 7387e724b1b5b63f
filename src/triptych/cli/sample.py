"""`triptych sample`: samples of a bundle, as a picture, an array or text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from triptych.infer import Engine

ENDINGS = (".png", ".npy", ".txt")
SAMPLES, MAX_TOKENS = 16, 200


def sample(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    out: Annotated[Path, typer.Option("--out", help="Where to: a file ending in .png, .npy or .txt.")],
    n: Annotated[int | None, typer.Option("--n", help=f"How many samples; {SAMPLES} if not given.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same bytes; 0 if not given.")
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Conditional models: JSON such as '{\"label\": 3}', or a list of labels in place of 3."
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text: what to go on from; nothing if not given.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help=f"Text: how many tokens; {MAX_TOKENS} if not given.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Text: 0 takes the likeliest token; 1 if not given.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Text: only the k likeliest tokens; 0 is all.")] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Text: only the likeliest tokens that together have this probability."),
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Text: only tokens at least this probable beside the likeliest.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Text: above 1, tokens that were there before are less likely.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Text: taken off a token's logit each time it was made.")
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option(help="Text: taken off a token's logit once it was made.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text: ends before this string; may be given several times.")
    ] = None,
    engine_name: Annotated[
        str, typer.Option("--engine", help="What computes: auto, onnxruntime or openvino.")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="f32, bf16, int8 (text), or auto: the fastest that is allowed.")
    ] = "f32",
) -> None:
    """Draw samples and write them to a file."""
    from triptych.cli.npy_stream import write_npy
    from triptych.cli.text_settings import check_text_settings, refuse_text_settings
    from triptych.errors import ConfigError, DataError, InputError
    from triptych.infer import load

    given = {
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

    if out.suffix not in ENDINGS:
        raise ConfigError(f"got {out.name!r}", where="--out", valid=f"a file ending in {', '.join(ENDINGS)}")
    if n is not None and n < 1:
        raise InputError(f"got {n}", where="--n", valid="an integer from 1")
    is_text = out.suffix == ".txt"
    if is_text:
        check_text_settings(given, n, seed)
    else:
        refuse_text_settings({"prompt": prompt, **given})
    count, seed = n or (1 if is_text and temperature == 0 else SAMPLES), seed or 0
    with load(bundle, engine_name, precision=precision) as engine:
        if is_text:
            refuse_without_text(engine)
            refuse_condition(condition)
            content: bytes | None = texts(engine, count, seed, prompt or "", given).encode()
        else:
            content = picture(engine, count, seed, parsed(condition)) if out.suffix == ".png" else None
        try:
            if content is None:
                write_npy(engine, out, count, seed, parsed(condition))
            else:
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(content)
        except OSError as error:
            raise DataError(f"cannot be written ({error.strerror})", where=str(out)) from error
    print(f"{count} {'sample' if count == 1 else 'samples'} written to {out}")


def texts(engine: Engine, n: int, seed: int, prompt: str, given: Mapping[str, Any]) -> str:
    """`n` continuations of a prompt, set apart by rules when there are several; `given` are fields of
    `GenerationRequest`, None where the default holds.
    """
    from triptych.infer import GenerationRequest

    settings = {
        "max_tokens": MAX_TOKENS,
        **{name: value for name, value in given.items() if value is not None},
    }
    loop = engine.decode_loop(min(n, 16))
    made: dict[int, str] = {}
    for index in range(n):
        request = GenerationRequest(prompt=prompt, seed=seed, index=index, **settings)
        made[loop.add(request)] = prompt
    while len(loop):
        for event in loop.step():
            made[event.id] += event.text
    return "\n\n---\n\n".join(made.values()) + "\n"


def picture(engine: Engine, n: int, seed: int, condition: object | None) -> bytes:
    """`n` samples as a PNG grid."""
    from triptych.bundle.pictures import is_image, png
    from triptych.errors import InputError

    if not is_image(engine.manifest.sample.shape):
        name = engine.manifest.name
        raise InputError(
            "its samples are no pictures", where=name, valid="a file ending in .npy, or .txt for text"
        )
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
