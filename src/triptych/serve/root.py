"""The root: a tiny process that owns the listening socket and keeps the node alive.

Because the root holds the socket, a new node finds the same port and the connections that waited. It imports
neither numpy nor an engine, and touches no request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from triptych.bundle import reader
from triptych.errors import ConfigError, ServeError, nearest
from triptych.serve.grpc import address as grpc_address
from triptych.serve.jobs.lane import with_place
from triptych.serve.logs import log_event
from triptych.serve.settings import Http, Limits, Settings
from triptych.serve.supervise.log_lines import start_logging
from triptych.serve.supervise.process import ProcessChild, spawn
from triptych.serve.supervise.spec import ChildSpec
from triptych.serve.supervise.supervisor import Supervisor
from triptych.serve.way import try_way

MAX_RESTARTS, MAX_SECONDS = 3, 30.0  # of the node
SAME_SIGNAL_S = 0.25  # process managers signal a process and then its whole group: that is one request
MARGIN_S = 5.0  # what the node may take beyond its own time limits before it is killed


def serve(bundles: Sequence[Path], settings: Settings, announce: Callable[[str], None]) -> int:
    """Serve `bundles` until SIGTERM or SIGINT; returns the exit code. Without any, the workers are those of
    `settings.jobs.broker`.

    Args:
        announce: called with each URL once requests are answered.

    Raises:
        BundleError: a bundle is missing or damaged.
        ConfigError: an address cannot be listened on, or a bundle cannot be computed as asked for.
        ServeError: the node did not start, or died too often.
    """
    start_logging(settings.log)
    settings = with_place(settings)
    names = [reader.read(folder).manifest.name for folder in bundles]
    if len(set(names)) < len(names):
        raise ConfigError(f"got {', '.join(names)}", where="bundles", valid="bundles of different names")
    if bundles:
        check_models(settings.limits, names)
    folders = [str(folder.resolve()) for folder in bundles]
    with listen(settings.http) as listener, grpc_address.held(settings) as (settings, grpc):
        return asyncio.run(Root(folders, settings, listener, grpc).run(announce))


def check_models(limits: Limits, names: Sequence[str]) -> None:
    """Raise ConfigError for a deadline of a model that is not served: it would have no effect."""
    for name in limits.model_timeouts_s:
        if name not in names:
            where, valid = "limits.model_timeouts_s", ", ".join(names)
            raise ConfigError(f"got `{name}`", where=where, valid=valid, remedy=nearest(name, names))


def listen(http: Http) -> socket.socket:
    """A listening socket.

    Raises: ConfigError when the port is in use, needs privileges, or the host has no such address.
    """
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        return socket.create_server((http.host, http.port), family=family, backlog=http.backlog)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {http.host}:{http.port} ({os.strerror(error.errno or 0).lower()})",
            where="http",
            remedy="choose another --port (0 takes a free one) or --host",
        ) from error


class Root:
    """The node's keeper.

    Args:
        grpc: the address of gRPC, held for the node; empty for none.
    """

    def __init__(self, bundles: list[str], settings: Settings, listener: socket.socket, grpc: str) -> None:
        self._bundles, self._settings, self._listener, self._grpc = bundles, settings, listener, grpc
        self._node: ProcessChild | None = None
        self._stop = asyncio.Event()
        self._is_first = True
        self._asked_at_s = 0.0

    @property
    def url(self) -> str:
        """Where the server answers."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def run(self, announce: Callable[[str], None]) -> int:
        """Keep the node alive until a signal asks for the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if not (await try_way(self._bundles, self._settings, self._stop) and await self._first_start()):
            return 0  # asked to stop before it was up: nothing had been accepted
        announce(self.url)
        if self._grpc:
            announce(f"grpc://{self._grpc}")
        drain = self._settings.drain
        shutdown_s = (
            drain.delay_s + 4 * drain.shutdown_s + MARGIN_S
        )  # server, jobs, pipeline and workers, one after another
        supervisor = Supervisor(
            [ChildSpec("node", self._start_node, shutdown=shutdown_s)],
            name="root",
            max_restarts=MAX_RESTARTS,
            max_seconds=MAX_SECONDS,
            on_event=log_event,
        )
        await supervisor.start()
        living = asyncio.create_task(supervisor.wait())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([living, stopping], return_when=asyncio.FIRST_COMPLETED)
        if living.done() and (error := living.result().exception):
            raise error
        self._listener.close()  # or connections would still queue up here after the node has closed its own
        await supervisor.stop()
        return self._code(self._node)

    async def _first_start(self) -> bool:
        """Start the node and wait until it answers: one that cannot start once will not start later.

        Returns: whether it did; False if a signal came first.
        """
        loop = asyncio.get_running_loop()
        read, write = os.pipe()
        self._node = await self._spawn(ready=write)
        os.close(write)
        answered: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(read, partial(take, answered, read))
        stopping = asyncio.create_task(self._stop.wait())
        waiting: list[asyncio.Future[Any]] = [answered, stopping]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(read)
        os.close(read)
        if answered.done() and answered.result():
            stopping.cancel()
            return True
        if not stopping.done():
            end = await self._node.wait()
            # a signal to the whole group may have ended the node, and be seen here a moment later
            asked, _ = await asyncio.wait([stopping], timeout=SAME_SIGNAL_S)
            if not asked:
                stopping.cancel()
                raise ServeError(
                    f"it did not start ({end.reason})", where="node", remedy="the lines above say why"
                )
        await self._node.stop(MARGIN_S)
        return False

    async def _start_node(self) -> ProcessChild:
        if self._node is None or not self._is_first:
            self._node = await self._spawn()
        self._is_first = False
        return self._node

    async def _spawn(self, ready: int | None = None) -> ProcessChild:
        listener = self._listener.fileno()
        call = {
            "settings": msgspec.to_builtins(self._settings),
            "bundles": self._bundles,
            "listener": listener,
            "ready": ready,
            "grpc": self._grpc,
        }
        descriptors = [listener] if ready is None else [listener, ready]
        environment = grpc_address.environment() if self._grpc else None
        return await spawn(
            "triptych.serve.node:main",
            call,
            name="node",
            pass_fds=descriptors,
            environment=environment,
            log=self._settings.log,
        )

    def _on_signal(self) -> None:
        """The first signal drains, the second stops now."""
        now_s = asyncio.get_running_loop().time()
        if not self._stop.is_set():
            self._stop.set()
            self._asked_at_s = now_s
        elif now_s - self._asked_at_s > SAME_SIGNAL_S and self._node is not None:
            self._node.send_signal(signal.SIGKILL)

    @staticmethod
    def _code(node: ProcessChild | None) -> int:
        return 0 if node is not None and node.exited.done() and node.exited.result().normal else 1


def take(answered: asyncio.Future[bytes], pipe: int) -> None:
    """Hand what came through `pipe` to who waits for it; nothing means that the other end was closed."""
    if not answered.done():
        answered.set_result(os.read(pipe, 64))
