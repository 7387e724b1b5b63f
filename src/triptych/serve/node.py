"""The node: one process with the HTTP server, the pipeline and the pool of workers, on one event loop.

Its parts end together: if one of them gives up, the node exits with the cause in its log, and the root starts
another.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import uvloop

from triptych.serve.catalog import Catalog
from triptych.serve.fleet import Fleet
from triptych.serve.gateway import Gateway
from triptych.serve.generation import Generation
from triptych.serve.http.app import App
from triptych.serve.http.crowd import take_all_descriptors
from triptych.serve.http.server import HttpChild
from triptych.serve.jobs.lane import open_lane
from triptych.serve.jobs.runner import JobRunner
from triptych.serve.logs import log_event
from triptych.serve.metrics import Metrics
from triptych.serve.settings import Settings
from triptych.serve.supervise.spec import Child, ChildSpec, Event
from triptych.serve.supervise.supervisor import Supervisor
from triptych.serve.supervise.task import TaskChild
from triptych.serve.workers import count_of, make_pool

if TYPE_CHECKING:
    from triptych.serve.remote.fleet import RemoteFleet

REMOTE_BATCHES = 64  # under way at a time, on all machines

log = logging.getLogger("triptych.serve")


class NodeCall(msgspec.Struct, frozen=True):
    """What the root tells the node: settings, bundle folders (none: the workers are elsewhere), and two file
    descriptors.

    `listener` is the listening socket; `ready`, if any, gets a line once requests are answered. `grpc` is the
    address of gRPC, empty for none.
    """

    settings: Settings
    bundles: list[str]
    listener: int
    ready: int | None = None
    grpc: str = ""


def main(call: object) -> int:
    """Entry point of the node process."""
    told = msgspec.convert(call, NodeCall)
    take_all_descriptors()
    return uvloop.run(Node(told).run())


class Node:
    """The parts of a node, and their life."""

    def __init__(self, call: NodeCall) -> None:
        self._settings, self._ready, self._grpc = call.settings, call.ready, call.grpc
        self._is_up = False
        self._listener = socket.socket(fileno=call.listener)
        self._metrics = Metrics()
        self._fleet: Fleet | RemoteFleet
        if call.bundles:
            self._serve_here(call)
        else:
            self._serve_elsewhere(call.settings)

    def _serve_here(self, call: NodeCall) -> None:
        """With workers of its own."""
        size = count_of(call.settings)
        fleet = self._fleet = Fleet(
            Catalog.read(call.bundles),
            call.bundles,
            partial(make_pool, settings=call.settings, size=size, on_event=self._on_event),
            retire_s=call.settings.limits.request_timeout_s,
        )
        gateway = self._gateway = Gateway(fleet.generation, call.settings, self._metrics, workers=size)

        async def swap() -> None:
            gateway.generation = await fleet.swap()

        gateway.swap = swap

    def _serve_elsewhere(self, settings: Settings) -> None:
        """With those that RabbitMQ leads to."""
        from triptych.serve.remote.fleet import RemoteFleet

        def on_generation(generation: Generation) -> None:
            self._gateway.generation = generation

        self._fleet = RemoteFleet(settings.jobs.broker, on_generation, max_texts=settings.queue.capacity)
        self._gateway = Gateway(self._fleet.generation, settings, self._metrics, workers=REMOTE_BATCHES)

    async def run(self) -> int:
        """Serve until SIGTERM (exit code 0) or until a part gives up (1)."""
        asked_to_stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
        supervisor = self._tree()
        living = asyncio.create_task(self._live(supervisor))
        stopping = asyncio.create_task(asked_to_stop.wait())
        await asyncio.wait([living, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if living.done():
            log.critical("the node gives up: %s", living.exception())
            return 1
        await self._drain(supervisor, living)
        return 0

    def _tree(self) -> Supervisor:
        shutdown_s = self._settings.drain.shutdown_s
        children = [
            ChildSpec("workers", self._start_fleet, shutdown=shutdown_s),
            ChildSpec("pipeline", self._start_pipeline, shutdown=shutdown_s),
            ChildSpec("jobs", self._start_jobs, shutdown=shutdown_s),
            ChildSpec("http", self._start_http, shutdown=shutdown_s),
        ]
        return Supervisor(children, name="node", strategy="one_for_all", max_restarts=0, on_event=log_event)

    async def _live(self, supervisor: Supervisor) -> None:
        await supervisor.start()
        gc.freeze()  # what is loaded by now stays: the collector need not walk over it again and again
        self._is_up = True
        if self._ready is not None:
            os.write(self._ready, b"ready\n")
            os.close(self._ready)
        end = await supervisor.wait()
        if end.exception is not None:
            raise end.exception

    async def _drain(self, supervisor: Supervisor, living: asyncio.Task[None]) -> None:
        self._gateway.is_draining = True
        drain = self._settings.drain
        log.info(
            "draining: not ready any more, listening for %g s, then %g s to finish",
            drain.delay_s,
            drain.shutdown_s,
        )
        await asyncio.sleep(drain.delay_s)
        if self._is_up:
            await supervisor.stop()
        living.cancel()
        await asyncio.wait([living])

    async def _start_fleet(self) -> Child:
        await self._fleet.start()
        return self._fleet

    async def _start_pipeline(self) -> Child:
        await self._gateway.pipeline.start()
        return self._gateway.pipeline

    async def _start_jobs(self) -> Child:
        settings = self._settings.jobs
        self._gateway.jobs, source = await open_lane(settings)
        return TaskChild(JobRunner(self._gateway, source, settings).run(), "jobs")

    async def _start_http(self) -> Child:
        http = await HttpChild.start(App(self._gateway), self._settings.http, self._listener)
        if not self._grpc:
            return http
        from triptych.serve.grpc.server import GrpcChild

        both = await GrpcChild.start(App(self._gateway), self._grpc, http)
        log.info("gRPC at %s", self._grpc)
        return both

    def _on_event(self, event: Event) -> None:
        log_event(event)
        self._metrics.count_event(event)
