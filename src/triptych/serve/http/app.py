"""What answers every exchange: which route, who may call it, and one answer for every error."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable

from triptych.errors import DeadlineExceeded
from triptych.serve.gateway import Gateway
from triptych.serve.http import images, jobs, kserve, native, openai, system
from triptych.serve.http.cors import Cors
from triptych.serve.http.exchange import Exchange
from triptych.serve.http.openapi import Interface
from triptych.serve.http.refusal import Refusal
from triptych.serve.http.routing import Route, Router

GRACE_S = 0.25  # for whoever waits within it to say what he waited for
GUARDED, OPEN = ("/v1/", "/v2"), "/v2/health/"

ROUTES = (
    Route("POST", "/v1/models/{name}/sample", native.sample, at_once=True),
    Route("POST", "/v1/models/{name}/run/{graph_name}", native.run, at_once=True),
    Route("POST", "/v1/completions", openai.complete),
    Route("POST", "/v1/images/generations", images.generate, at_once=True),
    Route("GET", "/v1/models", openai.list_models),
    Route("GET", "/v1/models/{name}", openai.show_model),
    Route("GET", "/v2", kserve.server),
    Route("GET", "/v2/health/live", kserve.live),
    Route("GET", "/v2/health/ready", kserve.ready),
    Route("GET", "/v2/models/{name}", kserve.show_model),
    Route("GET", "/v2/models/{name}/ready", kserve.model_ready),
    Route("POST", "/v2/models/{name}/infer", kserve.infer, at_once=True),
    Route("GET", "/v2/models/{name}/versions/{version}", kserve.show_model),
    Route("GET", "/v2/models/{name}/versions/{version}/ready", kserve.model_ready),
    Route("POST", "/v2/models/{name}/versions/{version}/infer", kserve.infer, at_once=True),
    Route("POST", "/v2/repository/index", kserve.index),
    Route("POST", "/v2/repository/models/{name}/load", kserve.load, is_timed=False),
    Route("POST", "/v1/jobs", jobs.submit),
    Route("GET", "/v1/jobs", jobs.list_dead),
    Route("GET", "/v1/jobs/{id}", jobs.show),
    Route("GET", "/v1/jobs/{id}/result", jobs.result),
    Route("POST", "/v1/jobs/{id}/cancel", jobs.cancel),
    Route("POST", "/v1/jobs/{id}/requeue", jobs.requeue),
    Route("GET", "/v2/workers", system.workers),
    Route("GET", "/livez", system.live),
    Route("GET", "/readyz", system.ready),
    Route("GET", "/healthz", system.health),
    Route("GET", "/metrics", system.metrics),
)


class App:
    """Answers every request of one gateway.

    Attributes:
        tasks: those that are answering now.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.tasks: set[asyncio.Task[None]] = set()
        self._token = gateway.settings.http.token.encode()
        self._cors = Cors(gateway.settings.http.cors_origins)
        self._router = Router((*ROUTES, *Interface(ROUTES).routes))

    def respond(self, exchange: Exchange) -> None:
        """Answer at once if that only means to queue work; else in a task of its own."""
        self.gateway.metrics.in_progress += 1
        try:
            if self._cors.admit(exchange):
                return
            if self._token and exchange.path.startswith(GUARDED) and not exchange.path.startswith(OPEN):
                self._check_token(exchange)
            route, parts = self._router.find(exchange.method, exchange.path)
            exchange.read_deadline()
            if route.at_once and parts.get("name") in self.gateway.catalog:
                exchange.about(parts["name"])
            if route.at_once and self._is_refused(exchange):
                return
            if route.at_once and not exchange.is_whole:
                answering: Awaitable[None] | None = when_whole(route, exchange, parts)
            else:
                answering = route.answer(exchange, **parts)
        except Exception as error:
            exchange.refuse(error)
            return
        if answering is not None:
            until_s = exchange.deadline_s + GRACE_S if route.is_timed else None
            task = asyncio.create_task(answer(exchange, answering, until_s))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def _is_refused(self, exchange: Exchange) -> bool:
        """Refuse work there would be no time for; by its header alone, whatever its body is."""
        error = self.gateway.overload(exchange.deadline_s)
        if error is None:
            return False
        exchange.refuse(error)
        return True

    def _check_token(self, exchange: Exchange) -> None:
        scheme, _, sent = exchange.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(sent.strip(), self._token):
            ask = [(b"www-authenticate", b"Bearer")]
            raise Refusal(
                401, "no valid token", where="Authorization", valid="Bearer and the token", headers=ask
            )


async def when_whole(route: Route, exchange: Exchange, parts: dict[str, str]) -> None:
    """Wait for the rest of the request, then answer."""
    await exchange.body()
    answering = route.answer(exchange, **parts)
    if answering is not None:
        await answering


async def answer(exchange: Exchange, answering: Awaitable[None], until_s: float | None) -> None:
    """Await what answers `exchange`, and answer for it if it fails, or has not done so at `until_s`."""
    limit = asyncio.timeout_at(until_s)
    try:
        async with limit:
            await answering
    except TimeoutError as error:
        late = DeadlineExceeded("the deadline passed before the answer was there", where="Request-Timeout")
        exchange.refuse(late if limit.expired() else error)
    except asyncio.CancelledError:
        if not exchange.is_gone:
            raise
    except Exception as error:
        exchange.refuse(error)
    else:
        exchange.cut_off()
