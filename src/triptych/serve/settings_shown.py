"""The settings for whoever wants to see them: as a file, and as plain data. Secrets are not shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from triptych.serve.settings import HIDDEN, SECRET, Section, Settings


def as_toml(settings: Settings) -> str:
    """The settings as a commented TOML file.

    Secrets are not shown: what stands for one is refused when the file is read, so that nobody serves
    without a token because it was printed away.
    """
    lines = [f"{key} = {_toml(value)}  # {meaning}" for key, value, meaning in _fields(settings)]
    for name in Settings.__struct_fields__:
        section = getattr(settings, name)
        if isinstance(section, Section):
            lines += ["", f"[{name}]  # {section.__doc__}"]
            lines += [f"{key} = {_toml(value)}  # {meaning}" for key, value, meaning in _fields(section)]
    return "\n".join(lines) + "\n"


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as plain data for whoever asks; secrets are not shown.

    >>> from triptych.serve.settings import read_settings
    >>> shown(read_settings(overrides=["http.token=x"]))["http"]["token"]
    '***'
    """
    tree: dict[str, Any] = msgspec.to_builtins(settings)
    for section in tree.values():
        if isinstance(section, dict):
            section.update({key: HIDDEN for key in SECRET if section.get(key)})
    return tree


def _fields(section: Section) -> Iterator[tuple[str, Any, str]]:
    hints = get_type_hints(type(section), include_extras=True)
    for key in section.__struct_fields__:
        value = getattr(section, key)
        meaning = _description(hints[key])
        if key in SECRET and value:
            yield key, HIDDEN, f"set, not shown: write it here, or remove the line; {meaning}"
        elif not isinstance(value, Section):
            yield key, value, meaning


def _description(hint: Any) -> str:
    return next(
        (m.description for m in reversed(get_args(hint)) if isinstance(m, Meta) and m.description), ""
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    return msgspec.json.encode(value).decode()
