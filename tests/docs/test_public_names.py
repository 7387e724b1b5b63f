"""Every public name says what it is, and every error is raised by some test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych import errors

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "src" / "triptych").rglob("*.py"))
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public definitions without a docstring; methods that fill a documented interface may do without."""
    documented = {"__init__", "forward", "order", "take", "whole"}
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield node.name
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    public = isinstance(method, Definition) and not method.name.startswith("_")
                    if not public or method.name in documented or is_overload(method):
                        continue
                    if ast.get_docstring(method) is None:
                        yield f"{node.name}.{method.name}"


def is_overload(method: ast.stmt) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in getattr(method, "decorator_list", []))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_every_public_name_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert not tree.body or ast.get_docstring(tree) is not None, "the module says not what it is"
    assert list(undocumented(tree)) == []


def test_every_error_is_raised_by_a_test() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)} - {"Iterable"}
    bases = {"TriptychError", "TrainingError"}  # caught, never raised themselves
    texts = " ".join(
        path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)
    )
    assert sorted(name for name in kinds - bases if name not in texts) == []


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    kinds = {n for n, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert drawn == kinds - {"TriptychError"}
