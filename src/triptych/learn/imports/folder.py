"""A folder as `save_pretrained` writes it: config.json, model.safetensors, tokenizer.json.

Everything is read as data: nothing of the folder is executed, no pickle is opened, nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer as Described
from torch import Tensor

from triptych.bundle import digest
from triptych.errors import BundleRefused, ConfigError, DataError, InputError
from triptych.infer.text import Tokenizer, is_random, panics_as_errors
from triptych.learn.export import export
from triptych.learn.imports import gpt2
from triptych.learn.imports.settings import GPT2Settings, parse
from triptych.learn.models import Transformer

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
GENERATION, INDEX = "generation_config.json", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
OF_NO_REQUEST = {"transformers_version", "use_cache", "pad_token_id", "return_dict_in_generate"}
PROBE = "To be, or not to be: 3 < 4.\n\tÜber 日本 🙂"
SAVE = "load it with transformers and call save_pretrained"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a folder: the bundle's folder, and what a reader of the original should know."""

    folder: Path
    notes: tuple[str, ...]


def import_folder(
    folder: str | os.PathLike[str], destination: str | os.PathLike[str], *, name: str | None = None
) -> Imported:
    """Write the GPT-2 in `folder` as a bundle, whose logits are the original's to float32 rounding.

    Args:
        folder: holds config.json, model.safetensors, tokenizer.json; generation_config.json, where there is
            one, says which token ends a text.
        destination: a new folder, or an earlier bundle, which is replaced.
        name: what the bundle is called; the destination's name if none is given.

    Raises: ConfigError for a field of config.json that cannot be followed; DataError for a file that is
        missing, damaged, or does not fit; ExportError as `export` does.
    """
    source = as_folder(folder)
    settings = parse(read_json(source / CONFIG), source / CONFIG)
    files = weight_files(source)
    tensors = read_tensors(files)
    tokenizer, notes = read_tokenizer(source / TOKENIZER, settings.vocab_size)
    start, ends, more = limits(source, settings)
    model = Transformer(gpt2.configured(settings, start, ends))
    gpt2.fill(model, tensors, settings, files[0])
    notes += more + roundings(tensors)
    training = {
        "imported_from": source.resolve().name,
        "imported_format": "a GPT-2 folder of transformers",
        "imported_weights_sha256": ", ".join(map(digest.sha256_of_file, files)),
    }
    return Imported(
        export(model, destination, name=name, training=training, tokenizer=tokenizer), tuple(notes)
    )


def as_folder(path: str | os.PathLike[str]) -> Path:
    """`path`, if it is a folder with the three files; what is missing is named with its remedy."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder), valid="a folder with config.json")
    here = {entry.name for entry in folder.iterdir()}
    if CONFIG not in here:
        raise DataError("is missing", where=str(folder / CONFIG), remedy=SAVE)
    has_weights = not here.isdisjoint((WEIGHTS, INDEX))
    if not has_weights and (pickles := sorted(here & set(PICKLES))):
        problem = "is not read: a pickle can run code" if pickles[0].endswith(".bin") else "is not read"
        raise DataError(problem, where=str(folder / pickles[0]), valid=WEIGHTS, remedy=SAVE)
    if not has_weights:
        raise DataError("is missing", where=str(folder / WEIGHTS), remedy=SAVE)
    if TOKENIZER not in here:
        remedy = "load the tokenizer with transformers.AutoTokenizer and call save_pretrained"
        raise DataError("is missing", where=str(folder / TOKENIZER), remedy=remedy)
    return folder


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        document = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"it cannot be read ({error})", where=str(file), valid="a JSON object") from error
    if not isinstance(document, dict):
        raise ConfigError(f"got {type(document).__name__}", where=str(file), valid="a JSON object")
    return document


def weight_files(folder: Path) -> list[Path]:
    """The file with the weights, or the several that an index beside it names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    try:
        names = sorted(set(msgspec.convert(read_json(index).get("weight_map"), dict[str, str]).values()))
    except msgspec.ValidationError as error:
        raise DataError(f"it names no files ({error})", where=str(index), remedy=SAVE) from error
    if unsafe := [name for name in names if not name.endswith(".safetensors") or Path(name).name != name]:
        raise DataError(f"it names {unsafe[0]!r}", where=str(index), valid="safetensors files of the folder")
    if not names:
        raise DataError("it names no files", where=str(index), remedy=SAVE)
    return [folder / name for name in names]


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Every tensor of the files by name."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            held: dict[str, Tensor] = load_file(file)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise DataError(
                f"it cannot be read ({error})", where=str(file), valid="a whole safetensors file", remedy=SAVE
            ) from error
        if twice := sorted(held.keys() & tensors.keys()):
            raise DataError(f"holds {twice[0]}, as another file does", where=str(file), remedy=SAVE)
        tensors |= held
    return tensors


def read_tokenizer(file: Path, vocab_size: int) -> tuple[str, list[str]]:
    """The tokenizer as `tokenizers` JSON without truncation or padding, and what to note of it."""
    notes = []
    try:
        described = file.read_text("utf-8")
        with panics_as_errors():
            tokenizer = Described.from_str(described)
    except Exception as error:  # `tokenizers` raises Exception itself
        raise DataError(
            f"it cannot be read ({error})", where=str(file), valid="a file of the tokenizers package"
        ) from error
    if tokenizer.truncation or tokenizer.padding or is_random(tokenizer):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if is_random(tokenizer):
            tokenizer.model.dropout = None
        described = tokenizer.to_str()
        notes.append(f"{TOKENIZER} truncates, pads or has dropout: the bundle's tokenizer does nothing of it")
    try:
        strict = Tokenizer(described, vocab_size, where=str(file))
    except BundleRefused as error:
        remedy = f"the tokenizer is of another model than {CONFIG}, whose vocab_size is {vocab_size}"
        raise DataError(error.problem, where=error.where, valid=error.valid, remedy=remedy) from error
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        notes.append(f"{TOKENIZER} has {size} tokens of the model's {vocab_size}: the others have no text")
    try:
        strict.encode(PROBE)
    except InputError:
        notes.append(f"{TOKENIZER} does not give back every text: a prompt that it would change is refused")
    return described, notes


def limits(folder: Path, settings: GPT2Settings) -> tuple[int, list[int], list[str]]:
    """The token a text starts from, those it ends with, and what to note of them."""
    file, notes = folder / GENERATION, []
    generation = read_json(file) if file.is_file() else {}
    defaults = {
        name
        for name, value in generation.items()
        if value not in (None, False) and not name.startswith(("_", "output_"))
    }
    if unkept := sorted(defaults - OF_NO_REQUEST - {"bos_token_id", "eos_token_id"}):
        notes.append(f"{GENERATION} sets {', '.join(unkept)}: here each request brings its own")
    first = generation.get("bos_token_id", settings.bos_token_id)
    last = generation.get("eos_token_id", settings.eos_token_id)
    starts, ends = as_tokens(first, file, "bos_token_id"), as_tokens(last, file, "eos_token_id")
    for name, tokens in (("bos_token_id", starts), ("eos_token_id", ends)):
        if beyond := [token for token in tokens if not 0 <= token < settings.vocab_size]:
            notes.append(f"{name} {beyond[0]} is not in the vocabulary of {settings.vocab_size}: left out")
    starts, ends = (
        [token for token in tokens if 0 <= token < settings.vocab_size] for tokens in (starts, ends)
    )
    if not ends:
        notes.append("no token ends a text: it goes on to max_tokens or a stop string")
    return (starts or [0])[0], ends, notes


def as_tokens(value: Any, file: Path, field: str) -> list[int]:
    """One token, several or none, as a list."""
    tokens = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in tokens):
        raise ConfigError(
            f"got {value!r}", where=f"{file}: {field}", valid="a token id, a list of them, or null"
        )
    return tokens


def roundings(tensors: Mapping[str, Tensor]) -> list[str]:
    """What to note of weights in other types than float32."""
    types = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()})
    others = [name for name in types if name not in ("float32", "bool", "uint8")]
    return [f"weights in {', '.join(others)} are computed with in float32"] if others else []
