"""What a bundle says of its training names a data set, or there is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from triptych.errors import BundleError
from triptych.learn.train.evaluation import recorded
from triptych.serve.catalog import Model

RECIPE = {"data": {"name": "digits"}, "data_spec": {"digest": "0" * 64}}


def found(make_model: Callable[..., Model], training: dict[str, Any]) -> dict[str, Any]:
    return recorded(Path("by-hand"), msgspec.structs.replace(make_model().manifest, training=training))


@pytest.mark.parametrize("data", [{"name": "digits"}, {"name": "digits", "seed": 1}, {}])
def test_the_recipe_of_a_bundle_is_as_it_was_recorded(
    make_model: Callable[..., Model], data: dict[str, Any]
) -> None:
    recipe = RECIPE | {"data": data, "train": {"seed": 3}}
    assert found(make_model, {"recipe": recipe, "steps": 7}) == recipe


@pytest.mark.parametrize(
    "recipe",
    [
        None,
        "vae-digits",
        [RECIPE],
        {"data": RECIPE["data"]},
        RECIPE | {"data": "digits"},
        RECIPE | {"data": ["name"]},
        RECIPE | {"data": None},
        RECIPE | {"data": {"name": ["digits"]}},
        RECIPE | {"data_spec": "0" * 64},
        RECIPE | {"data_spec": {}},
        RECIPE | {"data_spec": {"digest": 5}},
    ],
)
def test_a_recipe_that_names_no_data_set_is_one_clear_error(
    make_model: Callable[..., Model], recipe: Any
) -> None:
    with pytest.raises(BundleError, match="by-hand: it does not say what it was trained on"):
        found(make_model, {"recipe": recipe})
