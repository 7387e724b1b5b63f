"""Figures of a trained model, from its run folder or from the bundle it was exported to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load as load_tensors

from triptych.bundle import reader
from triptych.bundle.manifest import MANIFEST, Manifest
from triptych.bundle.rounded import is_rounded
from triptych.errors import BundleError, ConfigError
from triptych.infer import load
from triptych.learn.data.dataset import Dataset
from triptych.learn.evaluate import evaluate
from triptych.learn.evaluate.ways import change
from triptych.learn.models.base import GenerativeModel
from triptych.learn.train.recipe import DATASETS, load_data
from triptych.learn.train.run import build_model, open_run
from triptych.learn.train.state import load_weights


def evaluate_folder(path: str | Path, split: Literal["validation", "test"] = "test") -> dict[str, Any]:
    """The figures of the model in `path` over the whole split of the data set it was trained on.

    Raises:
        ConfigError: neither a run nor a bundle, or its data set cannot be made again from a recipe.
        BundleRefused: the bundle is damaged.
    """
    folder = Path(path)
    model, config = _open_bundle(folder) if (folder / MANIFEST).is_file() else _open_run(folder)
    data = _data(folder, config)
    figures = evaluate(model, getattr(data, split), tokenizer=data.tokenizer)
    return {"family": model.family, "dataset": data.name, "split": split, **figures}


def compare_ways(
    path: str | Path,
    split: Literal["validation", "test"] = "test",
    *,
    engine: str = "auto",
    precision: str = "f32",
    cache_precision: str = "f32",
) -> dict[str, Any]:
    """What computing the bundle in `path` this way changes on a split of the data it was trained on: the
    figures of onnxruntime in float32 and of this way, in nats.

    Raises: ConfigError, BundleError as `evaluate_folder` and `triptych.load` do.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        remedy = "export the run: it is bundles that are computed in several ways"
        raise ConfigError("is no bundle", where=str(folder), remedy=remedy)
    with (
        load(folder, "onnxruntime") as exact,
        load(folder, engine, precision=precision, cache_precision=cache_precision) as other,
    ):
        data = _data(folder, recorded(folder, exact.manifest))
        figures = change(exact, other, getattr(data, split))
    way = {"engine": engine, "precision": precision, "cache_precision": cache_precision}
    return {"family": exact.manifest.family, "dataset": data.name, "split": split, **way, **figures}


def _data(folder: Path, config: Mapping[str, Any]) -> Dataset:
    """The data set that a run's config or a bundle's recipe names, which must be the very same."""
    section, spec = config["data"], config["data_spec"]
    if section.get("name") not in DATASETS:
        raise ConfigError(
            f"it was trained on `{section.get('name')}` from Python, which no recipe can bring back",
            where=str(folder),
            remedy="call triptych.learn.evaluate.evaluate(model, split) with the data at hand",
        )
    data = load_data(section)
    if data.spec.digest != spec["digest"]:
        raise ConfigError(
            f"the data set `{data.name}` is not the one it was trained on",
            where=str(folder),
            valid=f"content of SHA-256 {spec['digest'][:12]}..., got {data.spec.digest[:12]}...",
        )
    return data


def _open_run(folder: Path) -> tuple[GenerativeModel, dict[str, Any]]:
    run = open_run(folder)
    return run.model, run.config


def _open_bundle(folder: Path) -> tuple[GenerativeModel, dict[str, Any]]:
    bundle = reader.read(folder)
    recipe = recorded(folder, bundle.manifest)
    model = build_model(bundle.manifest.config, folder)
    held = load_tensors(bytes(bundle.weights.data))
    own = {name: tensor for name, tensor in held.items() if not is_rounded(name)}
    load_weights(model, own, str(bundle.weights.path))
    return model.eval(), recipe


def recorded(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """The recipe that a bundle was trained by. Raises `BundleError` if it does not say."""
    recipe: Any = manifest.training.get("recipe")
    match recipe:
        case {"data": dict() as data, "data_spec": {"digest": str()}}:
            if isinstance(data.get("name", ""), str):
                return dict(recipe)
    raise BundleError(
        "it does not say what it was trained on",
        where=str(folder),
        remedy="evaluate the run folder it was exported from",
    )
