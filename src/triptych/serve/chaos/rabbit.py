"""A RabbitMQ of our own, to measure and to break: Debian's package, started beside whatever else runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import IO

from triptych.errors import ServeError

PROGRAMS = Path("/usr/lib/rabbitmq/bin")


def is_installed() -> bool:
    """Whether there is one to start."""
    return shutil.which("epmd") is not None and (PROGRAMS / "rabbitmq-server").exists()


class RabbitServer:
    """A RabbitMQ of our own: own node, ports, folders and epmd; ended by its process group.

    Args:
        folder: for all it writes; must exist.
        beside: a running one whose cluster it joins when it is started for the first time.

    Attributes:
        name: of its node.
        port: where it listens for clients.
    """

    def __init__(self, folder: Path, beside: RabbitServer | None = None) -> None:
        self.folder, self.port, self._dist_port, self._epmd_port = folder, *free_ports(3)
        if beside is not None:
            self._epmd_port = beside._epmd_port
        self.name = f"triptych-{self.port}@localhost"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        settings = [f"listeners.tcp.default = 0.0.0.0:{self.port}", "loopback_users = none"]
        if beside is not None:
            settings += [
                "cluster_formation.peer_discovery_backend = classic_config",
                f"cluster_formation.classic_config.nodes.1 = {beside.name}",
            ]
        (folder / "rabbitmq.conf").write_text("\n".join([*settings, ""]))
        (folder / "plugins").write_text("[].")
        cookie = folder / ".erlang.cookie"
        cookie.write_text("TRIPTYCHTESTS")
        cookie.chmod(0o400)
        self._epmd = None
        if beside is None:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(command, start_new_session=True)
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return url_of(self.port)

    def start(self) -> None:
        """Start it and return once its log says that it has started."""
        self._server = subprocess.Popen(
            [str(PROGRAMS / "rabbitmq-server")],
            cwd=self.folder,  # where its dumps go, should it die
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        assert self._server.stdout is not None
        lines = []
        for line in self._server.stdout:
            lines.append(line)
            if "Server startup complete" in line:
                self._reader = threading.Thread(
                    target=self._keep_log, args=[self._server.stdout], daemon=True
                )
                self._reader.start()
                return
        raise ServeError("did not start", where="RabbitMQ", remedy="it said: " + "".join(lines))

    def _keep_log(self, output: IO[str]) -> None:
        with (self.folder / "rabbitmq.log").open("a") as log:
            for line in output:
                log.write(line)

    def kill(self) -> None:
        """SIGKILL, as a power cut or the memory killer would."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._reader.join()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def send(self, number: signal.Signals) -> None:
        """A signal to all of its processes."""
        os.killpg(self._server.pid, number)

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says."""
        command = [str(PROGRAMS / "rabbitmqctl"), "--node", self.name, *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ServeError(done.stdout + done.stderr, where=f"rabbitmqctl {arguments[0]}")
        return done.stdout

    def queues(self, *columns: str) -> list[list[str]]:
        """What it says of each of its queues: its name, then `columns`."""
        said = self.control("-q", "list_queues", "name", *columns, "--no-table-headers")
        return [line.split("\t") for line in said.splitlines()]

    def add_host(self, name: str) -> None:
        """Make a virtual host, in which queues are apart from all others."""
        self.control("add_vhost", name)
        self.control("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")

    def set(self, **settings: int) -> None:
        """Set variables of the application `rabbit`; connections made afterwards heed them."""
        calls = (f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items())
        self.control("eval", ", ".join(calls) + ".")

    def close(self) -> None:
        """End it, and its epmd."""
        if self._server.returncode is None:
            self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()


def url_of(port: int) -> str:
    """The URL of a RabbitMQ, or of what passes on to one, at `port` of this machine."""
    return f"amqp://guest:guest@127.0.0.1:{port}/"


def free_ports(n: int) -> list[int]:
    """Ports nobody listens on."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports
