"""The public names of `triptych.learn`, and the examples in its formulas, blocks and models."""

import doctest
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import triptych.learn

PANELS = ("maths", "nn", "models", "evaluate")
MODULES = [
    f"triptych.learn.{panel}.{module.name}"
    for panel in PANELS
    for module in pkgutil.iter_modules(import_module(f"triptych.learn.{panel}").__path__)
]


@pytest.mark.parametrize("name", triptych.learn.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(triptych.learn, name) is not None


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="Trainr"):
        triptych.learn.Trainr  # noqa: B018


@pytest.mark.parametrize("name", ["triptych.learn", *MODULES])
def test_the_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_the_formulas_need_no_checker_at_run_time() -> None:
    made = "import sys; from triptych.learn import VAE; VAE(VAE.Config()).sample(1)"
    code = f"{made}; print('beartype' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "False"
