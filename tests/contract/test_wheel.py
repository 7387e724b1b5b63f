"""What is not Python code must be named in `package-data`, or an installed Triptych lacks it."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_package_is_packed() -> None:
    package = ROOT / "src" / "triptych"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packed = {
        file
        for pattern in settings["tool"]["setuptools"]["package-data"]["triptych"]
        for file in package.glob(pattern)
    }
    there = {
        file for folder in (package, package / "recipes") for file in folder.rglob("*.*") if file.is_file()
    }
    lacking = {
        file for file in there - packed if file.suffix not in (".py", ".pyc", ".so") and file.name[0] != "."
    }
    assert not lacking
