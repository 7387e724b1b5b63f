"""The server in one process with its caller: codes, and the way down."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from triptych import errors
from triptych.serve.catalog import Catalog, Model
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.grpc.address import held
from triptych.serve.grpc.messages import CLASSES, SERVICE
from triptych.serve.grpc.server import GrpcChild
from triptych.serve.grpc.service import CODES, code_of
from triptych.serve.http.app import App
from triptych.serve.http.refusal import STATUS
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Settings, read_settings
from triptych.serve.supervise.task import TaskChild

pytestmark = pytest.mark.anyio


def on(*more: str) -> Settings:
    return read_settings(overrides=["grpc.port=0", *more])


ON = on("limits.body_bytes=1000")
INFER = CLASSES["ModelInferRequest"]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request):
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


class Held:
    """Workers that answer nothing until told."""

    def __init__(self) -> None:
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def idle(self) -> None:
        """There is always room."""

    async def run(self, payloads: list[bytes], *, deadline_s: float | None = None) -> Any:
        self.begun.set()
        await self.let_go.wait()
        return [errors.Poison("let go", where="worker") for _ in payloads]


class Running:
    """A server of a model that nobody computes, and a channel to it."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.pool = Held()
        generation = Generation(Catalog({model.name: model}), self.pool)  # type: ignore[arg-type]
        self.gateway = Gateway(generation, settings, Metrics())
        self.http = TaskChild(asyncio.Event().wait(), "http")
        self.child: GrpcChild
        self.channel: grpc.aio.Channel

    async def call(self, name: str, message: bytes, **more: Any) -> Any:
        raw = await self.channel.unary_unary(f"/{SERVICE}/{name}")(message, **more)
        return CLASSES[f"{name}Response"].FromString(raw)

    async def fail(self, name: str, message: bytes, **more: Any) -> grpc.aio.AioRpcError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(name, message, **more)
        return caught.value


@asynccontextmanager
async def running(model: Model, settings: Settings = ON) -> AsyncIterator[Running]:
    made = Running(model, settings)
    await made.gateway.pipeline.start()
    with held(settings) as (_, address):
        made.child = await GrpcChild.start(App(made.gateway), address, made.http)
        made.channel = grpc.aio.insecure_channel(address)
        try:
            async with asyncio.timeout(20):
                yield made
        finally:
            made.pool.let_go.set()
            await made.channel.close()
            await made.child.stop("brutal_kill")
            await made.gateway.pipeline.stop("brutal_kill")


def sample(id: str = "") -> bytes:
    message = INFER(model_name="by-hand", id=id)
    message.parameters["seed"].int64_param = 7
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("kind", STATUS)
def test_every_error_that_has_a_status_has_a_code(kind: type[errors.TriptychError]) -> None:
    assert STATUS[kind] in CODES


def test_what_has_no_code_of_its_own_is_internal() -> None:
    assert code_of(500) is grpc.StatusCode.INTERNAL


async def test_a_message_that_is_none_and_one_too_large_are_refused_before_anything_is_done(
    make_model: Callable[..., Model],
) -> None:
    async with running(make_model()) as made:
        error = await made.fail("ModelInfer", b"\xff")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == "the message is no ModelInferRequest"
        large = INFER(model_name="by-hand", id="i" * 1000).SerializeToString()
        assert (await made.fail("ModelInfer", large)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        # small as varints, and as raw values larger than may be
        part = CLASSES["InferInputTensor"](name="z", datatype="INT64", shape=[200])
        part.contents.int64_contents.extend([1] * 200)
        error = await made.fail("ModelInfer", INFER(model_name="by-hand", inputs=[part]).SerializeToString())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "valid: at most 1000 bytes" in str(error.details())
        assert made.gateway.metrics.in_progress == 0


async def test_messages_that_take_too_much_together_are_refused_and_their_room_is_given_back(
    make_model: Callable[..., Model],
) -> None:
    small = on("limits.body_bytes=1000", "limits.bodies_bytes=1500")
    async with running(make_model(), small) as made:
        room = made.gateway.bodies
        accepted = asyncio.create_task(made.fail("ModelInfer", sample("i" * 700)))
        await made.pool.begun.wait()
        kept = room.held_bytes
        assert kept > 700
        error = await made.fail("ModelInfer", sample("i" * 800))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "those of all requests take more than 1500 bytes" in str(error.details())
        assert dict(error.trailing_metadata())["retry-after"] == "1"
        # there is room for it as varints, and not for its raw values
        part = CLASSES["InferInputTensor"](name="z", datatype="INT64", shape=[100])
        part.contents.int64_contents.extend([1] * 100)
        error = await made.fail("ModelInfer", INFER(model_name="by-hand", inputs=[part]).SerializeToString())
        assert "those of all requests take more than 1500 bytes" in str(error.details())
        assert (await made.call("ServerLive", b"")).live
        assert room.held_bytes == kept
        made.pool.let_go.set()
        await accepted
        assert room.held_bytes == 0


async def test_a_message_takes_room_before_anybody_wants_it(make_model: Callable[..., Model]) -> None:
    asked = CLASSES["ServerReadyRequest"].FromString(b"\x0a\xff\x01" + b"?" * 255)  # a field it does not know
    async with running(make_model()) as made:
        asking = asyncio.Event()

        async def probe(*_: Any, **__: Any) -> dict[int, str]:
            asking.set()
            await made.pool.let_go.wait()
            return {0: "ok"}

        made.pool.probe = probe  # type: ignore[attr-defined]
        accepted = asyncio.create_task(made.call("ServerReady", asked.SerializeToString()))
        await asking.wait()
        assert made.gateway.bodies.held_bytes == 258
        made.pool.let_go.set()
        assert (await accepted).ready
        assert made.gateway.bodies.held_bytes == 0


async def test_more_calls_than_connections_may_be_open_are_refused(make_model: Callable[..., Model]) -> None:
    async with running(make_model(), on("http.connections=1")) as made:
        accepted = asyncio.create_task(made.fail("ModelInfer", sample()))
        await made.pool.begun.wait()
        assert (await made.fail("ServerLive", b"")).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        made.pool.let_go.set()
        await accepted


async def test_settings_beyond_the_numbers_of_the_library_are_the_largest_it_has(
    make_model: Callable[..., Model],
) -> None:
    large = ("limits.body_bytes=2147483648", "http.connections=2147483648")
    long = ("http.keep_alive_s=2147484", "http.header_timeout_s=2147484")
    async with running(make_model(), on(*large, *long)) as made:
        assert (await made.call("ServerLive", b"")).live


async def test_an_error_of_the_work_is_an_error_of_the_call(make_model: Callable[..., Model]) -> None:
    async with running(make_model()) as made:
        made.pool.let_go.set()
        error = await made.fail("ModelInfer", sample())
        assert error.code() is grpc.StatusCode.INTERNAL
        assert made.gateway.metrics.in_progress == 0


async def test_stopping_waits_for_what_was_accepted_and_refuses_what_comes(
    make_model: Callable[..., Model],
) -> None:
    async with running(make_model()) as made:
        accepted = asyncio.create_task(made.fail("ModelInfer", sample()))
        await made.pool.begun.wait()
        stopping = asyncio.create_task(made.child.stop(10.0))
        await asyncio.sleep(0)
        late = await made.fail("ServerLive", b"")
        assert (late.code(), late.details()) == (
            grpc.StatusCode.UNAVAILABLE,
            "server: the server is stopping",
        )
        assert not accepted.done()
        made.pool.let_go.set()
        assert (await accepted).code() is grpc.StatusCode.INTERNAL
        await stopping
        assert made.gateway.metrics.in_progress == 0


async def test_stopping_cancels_what_is_not_done_in_time_and_frees_its_place(
    make_model: Callable[..., Model],
) -> None:
    async with running(make_model()) as made:
        accepted = asyncio.create_task(made.fail("ModelInfer", sample()))
        await made.pool.begun.wait()
        await made.child.stop(0.01)
        assert (await accepted).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert made.gateway.metrics.in_progress == 0


async def pollers_have_ended() -> None:
    """Wait for the library's threads, which end with the last server and channel."""
    gc.collect()
    for thread in pollers():
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()


def pollers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_poll_wrapper" in thread.name]


async def test_no_thread_outlives_the_server(make_model: Callable[..., Model]) -> None:
    await pollers_have_ended()
    async with running(make_model()) as made:
        assert (await made.call("ServerLive", b"")).live
        assert pollers()
    del made
    await pollers_have_ended()
