"""The ASGI application: which route answers, who may call it, and one answer for every error."""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router

from triptych.errors import DeadlineExceeded
from triptych.serve.gateway import Gateway
from triptych.serve.http import native, openai, openapi, system
from triptych.serve.http.exchange import Exchange, Receive, Send
from triptych.serve.http.refusal import Refusal, headers_of, native_body, openai_body, status_of
from triptych.serve.work import JSON

Answer = Callable[..., Awaitable[None]]

HOT_PREFIX, HOT_SUFFIX = "/v1/models/", "/sample"
OPENAI_PATHS = ("/v1/completions", "/v1/models")
GUARDED = ("/v1/", "/v2/")

ROUTES: tuple[tuple[str, str, Answer], ...] = (
    ("POST", "/v1/models/{name}/sample", native.sample),
    ("POST", "/v1/models/{name}/run/{graph_name}", native.run),
    ("POST", "/v1/completions", openai.complete),
    ("GET", "/v1/models", openai.list_models),
    ("GET", "/v1/models/{name}", openai.show_model),
    ("GET", "/v2/workers", system.workers),
    ("GET", "/livez", system.live),
    ("GET", "/readyz", system.ready),
    ("GET", "/healthz", system.health),
    ("GET", "/metrics", system.metrics),
    ("GET", "/openapi.json", openapi.document),
    ("GET", "/docs", openapi.page),
)


class Endpoint:
    """An answering function as the ASGI application that Starlette's router calls."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer the exchange that `App` put into the scope."""
        await self._answer(scope["triptych.exchange"], **scope["path_params"])


class App:
    """Answers every request of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._token = gateway.settings.http.token.encode()
        table = [Route(path, Endpoint(answer), methods=[method]) for method, path, answer in ROUTES]
        self._router = Router(table, redirect_slashes=False)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        exchange = Exchange(self._gateway, scope, receive, send)
        in_progress = self._gateway.metrics.in_progress
        in_progress.inc()
        try:
            await self._answer(exchange)
        except asyncio.CancelledError:
            if not exchange.is_gone:
                raise
            uncancel()
            self._gateway.metrics.cancelled.labels(exchange.model).inc()
        except Exception as error:
            await refuse(exchange, error)
        finally:
            exchange.unwatch()
            in_progress.dec()
            self._count(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        scope = exchange.scope
        path: str = scope["path"]
        if self._token and path.startswith(GUARDED):
            self._check_token(exchange)
        name = path[len(HOT_PREFIX) : -len(HOT_SUFFIX)]
        if scope["method"] == "POST" and path == f"{HOT_PREFIX}{name}{HOT_SUFFIX}" and "/" not in name:
            await native.sample(exchange, name)
            return
        scope["triptych.exchange"], scope["app"] = exchange, self
        try:
            await self._router(scope, exchange.receive, exchange.send)
        except HTTPException as error:
            raise self._refusal(error, scope) from error

    def _check_token(self, exchange: Exchange) -> None:
        sent = exchange.headers.get(b"authorization", b"")
        if not hmac.compare_digest(sent, b"Bearer " + self._token):
            ask = [(b"www-authenticate", b"Bearer")]
            raise Refusal(
                401, "no valid token", where="Authorization", valid="Bearer and the token", headers=ask
            )

    @staticmethod
    def _refusal(error: HTTPException, scope: Any) -> Refusal:
        headers = [(key.lower().encode(), value.encode()) for key, value in (error.headers or {}).items()]
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            return Refusal(405, f"got {scope['method']}", where="method", valid=allowed, headers=headers)
        return Refusal(
            404, f"there is no `{scope['path']}`", where="path", remedy="see /docs", headers=headers
        )

    def _count(self, exchange: Exchange) -> None:
        metrics = self._gateway.metrics
        metrics.requests.labels(exchange.model, str(exchange.status or 499)).inc()
        elapsed_s = asyncio.get_running_loop().time() - exchange.arrived_at_s
        metrics.request_duration.labels(exchange.model).observe(elapsed_s)


async def refuse(exchange: Exchange, error: Exception) -> None:
    """Answer with an error, in the shape the route speaks."""
    status = status_of(error)
    if isinstance(error, DeadlineExceeded):
        exchange.gateway.metrics.expired.labels(exchange.model).inc()
    path: str = exchange.scope["path"]
    is_openai = path in OPENAI_PATHS or (path.startswith("/v1/models/") and path.count("/") == 3)
    body = (openai_body if is_openai else native_body)(error, status)
    if not exchange.status:
        await exchange.answer(status, body, JSON, headers_of(error, status))


def uncancel() -> None:
    """The cancellation was the client's leaving: this task ends in good order."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def routes() -> list[tuple[str, str, str]]:
    """Method, path and meaning of every route."""
    return [(method, path, inspect.cleandoc(answer.__doc__ or "")) for method, path, answer in ROUTES]
