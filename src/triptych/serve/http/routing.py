"""Which function answers which path."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from triptych.serve.http.refusal import Refusal

Answer = Callable[..., Awaitable[None] | None]


class Route(NamedTuple):
    """A method and path, such as `/v1/models/{name}`, and what answers there.

    `answer` is called with the exchange and the parts of the path in braces. Usually it is a coroutine
    function. `at_once` says that it is not: it is called when the whole request is here, and may return None,
    having seen to it that the answer will be given. `is_timed`: whether the request's deadline ends it.
    """

    method: str
    path: str
    answer: Answer
    at_once: bool = False
    is_timed: bool = True

    @property
    def meaning(self) -> str:
        """What it does, in its own words."""
        return inspect.cleandoc(self.answer.__doc__ or "")


class Router:
    """Finds routes by the number of slashes, then by pattern; a part in braces is anything but a slash."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._patterns: dict[int, dict[re.Pattern[str], dict[str, Route]]] = defaultdict(dict)
        for route in routes:
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(route.path)))
            methods = self._patterns[route.path.count("/")].setdefault(pattern, {})
            methods[route.method] = route
            if route.method == "GET":
                methods["HEAD"] = route

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route, and the parts of its path.

        Raises: Refusal: 404, or 405 with the methods that there are.
        """
        allowed: list[str] = []
        for pattern, methods in self._patterns.get(path.count("/"), {}).items():
            found = pattern.fullmatch(path)
            if found is not None:
                if method in methods:
                    return methods[method], found.groupdict()
                allowed += methods
        if allowed:
            names = ", ".join(allowed)
            header = [(b"allow", names.encode())]
            raise Refusal(405, f"got {method}", where="method", valid=names, headers=header)
        raise Refusal(404, f"there is no `{path}`", where="path", remedy="see /docs")
