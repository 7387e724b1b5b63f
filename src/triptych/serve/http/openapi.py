"""`/openapi.json` and `/docs`: what every route takes, made from the routes and their schemas."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from triptych import __version__
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.images import ImagesBody
from triptych.serve.http.refusal import encode
from triptych.serve.http.routing import Route
from triptych.serve.http.schemas import CompletionBody, JobBody, RunBody, SampleBody
from triptych.serve.kserve import InferBody
from triptych.serve.work import JSON

STYLE = (
    "<style>body{font:16px/1.5 system-ui;max-width:50em;margin:2em auto;padding:0 1em}"
    "td{padding:.1em 1em .1em 0}</style>"
)
BODIES = {
    "/sample": SampleBody,
    "/run/{graph_name}": RunBody,
    "/v1/completions": CompletionBody,
    "/infer": InferBody,
    "/v1/images/generations": ImagesBody,
    "/v1/jobs": JobBody,
}


class Interface:
    """The description of an interface, as two more routes of it."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = (
            Route("GET", "/openapi.json", self.document),
            Route("GET", "/docs", self.page),
        )
        self._described = (*routes, *self.routes)

    async def document(self, exchange: Exchange) -> None:
        """`GET /openapi.json`: this interface, as OpenAPI 3.1."""
        await exchange.answer(200, self._json, JSON, [])

    async def page(self, exchange: Exchange) -> None:
        """`GET /docs`: this interface, for people."""
        await exchange.answer(200, self._html, "text/html; charset=utf-8", [])

    @cached_property
    def _json(self) -> bytes:
        return encode(describe(self._described))

    @cached_property
    def _html(self) -> bytes:
        return render(describe(self._described)).encode()


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document."""
    _, schemas = msgspec.json.schema_components(BODIES.values(), ref_template="#/components/schemas/{name}")
    paths: dict[str, Any] = {}
    for route in routes:
        described = operation(route.path, route.meaning, has_body=route.method == "POST")
        paths.setdefault(route.path, {})[route.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Triptych", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def operation(path: str, meaning: str, *, has_body: bool = True) -> dict[str, Any]:
    """One route."""
    names = re.findall(r"{(\w+)}", path)
    described: dict[str, Any] = {
        "summary": meaning.partition(": ")[2] or meaning,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ],
        "responses": {"200": {"description": "the answer"}, "default": {"description": "an error, as JSON"}},
    }
    body = next((body for suffix, body in BODIES.items() if path.endswith(suffix)), None)
    if body is not None and has_body:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return described


def render(described: dict[str, Any]) -> str:
    """The document as one small page without scripts."""
    parts = []
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{prose(operation['summary'])}</p>")
            for content in operation.get("requestBody", {}).get("content", {}).values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                parts.append(table(described["components"]["schemas"][name]["properties"]))
    title = f"<h1>Triptych {described['info']['version']}</h1>"
    return f"<!doctype html><meta charset=utf-8><title>Triptych</title>{STYLE}{title}{''.join(parts)}"


def table(properties: dict[str, Any]) -> str:
    """The fields of a body."""
    rows = []
    for name, schema in properties.items():
        kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
        kind = ", ".join(map(kind_of, kinds))
        meaning = next((kind["description"] for kind in kinds if "description" in kind), "")
        cells = (f"<code>{name}</code>", html.escape(kind), prose(meaning))
        rows.append("<tr>" + "".join(f"<td>{cell}" for cell in cells))
    return f"<table>{''.join(rows)}</table>"


def kind_of(schema: dict[str, Any]) -> str:
    """What a field takes, in a word or two.

    >>> kind_of({"enum": ["png"]}), kind_of({"type": "integer", "minimum": 1, "maximum": 20}), kind_of({})
    ('"png"', 'integer from 1 to 20', 'any')
    """
    if "enum" in schema:
        return ", ".join(f'"{value}"' for value in schema["enum"])
    ends = (
        ("minimum", "from"),
        ("exclusiveMinimum", "above"),
        ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    )
    bounds = "".join(f" {word} {schema[end]:g}" for end, word in ends if end in schema)
    return str(schema.get("type", schema.get("$ref", "any").rpartition("/")[2])) + bounds


def prose(text: str) -> str:
    """A sentence as HTML: what is in backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
