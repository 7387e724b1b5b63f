"""Recipes: TOML files with the sections [data] [model] [train] [log], checked key by key."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from triptych.errors import ConfigError, nearest
from triptych.learn import data as datasets
from triptych.learn.data.dataset import Dataset
from triptych.learn.data.toys import toy_grid, toy_ring
from triptych.learn.models import FAMILIES, build
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train import rng
from triptych.learn.train.settings import LogSettings, TrainSettings, as_section

SECTIONS = ("data", "model", "train", "log")
FOR_THE_DATA_TO_SAY = {"model.sample_shape", "model.start_token", "model.end_tokens"}
DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": datasets.digits,
    "fashion_mnist": datasets.fashion_mnist,
    "folder": datasets.from_folder,
    "idx": datasets.from_idx,
    "npy": datasets.from_npy,
    "shakespeare": datasets.shakespeare,
    "text": datasets.from_text,
    "toy_grid": toy_grid,
    "toy_ring": toy_ring,
}


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `data` and `model` are made by `make`."""

    name: str
    data: dict[str, Any]
    model: dict[str, Any]
    train: TrainSettings
    log: LogSettings

    def make(self) -> tuple[GenerativeModel, Dataset]:
        """The data set, and a model with fresh weights of this seed that fits it."""
        dataset = load_data(self.data)
        given = {**{k: v for k, v in dataset.known_fields().items() if self._takes(k)}, **self.model}
        config = as_section(FAMILIES[given["family"]].Config, given, "model")
        dataset.check(config)
        rng.seed_all(self.train.seed)
        return build(config), dataset

    def _takes(self, field: str) -> bool:
        config = FAMILIES[self.model["family"]].Config
        return any(known.name == field for known in msgspec.structs.fields(config))


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, by path or by the name of a shipped one, and apply `section.key=value` changes.

    Raises:
        ConfigError: no such recipe, not TOML, or a key or value that is not valid.
    """
    file = find_recipe(path)
    try:
        document = tomllib.loads(file.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"not a readable TOML file: {error}", where=str(file)) from error
    for change in changes:
        _apply(document, change)
    for section, content in document.items():
        if section in SECTIONS and not isinstance(content, dict):
            raise ConfigError(
                f"`{section}` is {content!r}, not a section",
                where=str(file),
                remedy=f"write it as [{section}]",
            )
        if section not in SECTIONS:
            raise ConfigError(
                f"there is no section `{section}`",
                where=str(file),
                valid=", ".join(f"[{s}]" for s in SECTIONS),
                remedy=nearest(section, SECTIONS),
            )
    model = document.get("model", {})
    _one_of(model.get("family"), FAMILIES, "model.family")
    config = FAMILIES[model["family"]].Config
    try:
        as_section(config, model, "model")
    except ConfigError as error:
        if error.where not in FOR_THE_DATA_TO_SAY:  # `make` says whether they fit each other
            raise
    data = document.get("data", {})
    check_data(data)
    return Recipe(
        file.stem,
        data,
        model,
        as_section(TrainSettings, document.get("train", {}), "train"),
        as_section(LogSettings, document.get("log", {}), "log"),
    )


def load_data(section: dict[str, Any]) -> Dataset:
    """The data set of a `[data]` section."""
    given = check_data(section)
    return DATASETS[section["name"]](**given)


def check_data(section: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a `[data]` section, or a `ConfigError`."""
    _one_of(section.get("name"), DATASETS, "data.name")
    function = DATASETS[section["name"]]
    hints = get_type_hints(function)
    parameters = {n: p for n, p in inspect.signature(function).parameters.items() if n != "text"}
    fields: list[Any] = [
        (n, hints[n]) if p.default is p.empty else (n, hints[n], p.default) for n, p in parameters.items()
    ]
    kind = msgspec.defstruct("Data", fields, kw_only=True, forbid_unknown_fields=True)
    given = {k: v for k, v in section.items() if k != "name"}
    as_section(kind, given, "data")
    return given


def _one_of(value: Any, valid: dict[str, Any], where: str) -> None:
    if not isinstance(value, str) or value not in valid:
        problem = "is missing" if value is None else f"got {value!r}"
        remedy = nearest(value, valid) if isinstance(value, str) else ""
        raise ConfigError(problem, where=where, valid=", ".join(sorted(valid)), remedy=remedy)


def _apply(document: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        raise ConfigError(f"got {change!r}", where="--set", valid="section.key=value, such as train.seed=1")
    if section not in SECTIONS:
        raise ConfigError(
            f"there is no section `{section}`",
            where=f"--set {change}",
            valid=", ".join(SECTIONS),
            remedy=nearest(section, SECTIONS),
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *tables, last = key.strip().split(".")
    for table in tables:
        document = document.setdefault(table, {})
        if not isinstance(document, dict):
            raise ConfigError(f"`{table}` is a value, not a table", where=f"--set {change}")
    document[last] = value


def shipped_recipes() -> list[Path]:
    """The recipes that come with Triptych, by name."""
    return sorted(recipe_folder().glob("*.toml"))


def about(file: Path) -> str:
    """What a recipe says of itself in the comment that it begins with."""
    lines = file.read_text("utf-8").splitlines()
    return "\n".join(line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines))


def recipe_folder() -> Path:
    """`recipes/` of the checkout is also a folder of the package: a link here, a copy in a wheel."""
    return Path(datasets.__file__).parents[2] / "recipes"


def find_recipe(path: str | Path) -> Path:
    """`path` itself when it is a file, else the shipped recipe of that name."""
    if Path(path).is_file():
        return Path(path)
    shipped = {file.stem: file for file in shipped_recipes()}
    name = str(path).removesuffix(".toml").removeprefix("recipes/")
    if name in shipped:
        return shipped[name]
    raise ConfigError(
        "there is no such recipe",
        where=str(path),
        valid="a TOML file, or one of " + ", ".join(shipped),
        remedy=nearest(name, shipped),
    )
