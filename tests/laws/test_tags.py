"""A formula stands on the maths page, in one docstring and on one line of code: the same one."""

import re
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/maths.md").read_text()
SOURCES = [path.read_text() for path in sorted((ROOT / "src/triptych/learn").rglob("*.py"))]

FORMULA = re.compile(r"\$\$(?P<formula>(?:(?!\$\$).)+?)\\tag\{(?P<tag>[\w.]+)\}\s*\$\$", re.DOTALL)
CODE_LINE = re.compile(r"^(?P<code>.*\S) +# \((?P<tag>\w+\.\w+)\)$", re.MULTILINE)


def formulas(text: str) -> list[tuple[str, str]]:
    return [(found["tag"], " ".join(found["formula"].split())) for found in FORMULA.finditer(text)]


def test_each_tag_stands_once_on_the_page_once_in_a_docstring_and_once_in_code() -> None:
    on_page = sorted(tag for tag, _ in formulas(PAGE))
    in_docstrings = sorted(tag for source in SOURCES for tag, _ in formulas(source))
    in_code = sorted(found["tag"] for source in SOURCES for found in CODE_LINE.finditer(source))
    assert len(set(on_page)) == len(on_page) > 15
    assert on_page == in_docstrings
    assert on_page == in_code


def test_the_page_and_the_docstring_show_the_same_formula() -> None:
    assert dict(formulas(PAGE)) == dict(entry for source in SOURCES for entry in formulas(source))


def test_every_function_the_page_names_exists() -> None:
    for module, name in re.findall(r"`maths\.(\w+)\.(\w+)`", PAGE):
        assert hasattr(import_module(f"triptych.learn.maths.{module}"), name), f"{module}.{name}"
