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
    """A RabbitMQ of our own: own node, ports, folders and epmd; ended by its process group."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self._epmd_port, self._dist_port = folder, *free_ports(3)
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
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 0.0.0.0:{self.port}\nloopback_users = none\n"
        )
        (folder / "plugins").write_text("[].")
        cookie = folder / ".erlang.cookie"
        cookie.write_text("TRIPTYCHTESTS")
        cookie.chmod(0o400)
        self._epmd = subprocess.Popen(
            ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"], start_new_session=True
        )
        self.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it and return once its log says that it has started."""
        self._server = subprocess.Popen(
            [str(PROGRAMS / "rabbitmq-server")],
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

    def close(self) -> None:
        """End it, and its epmd."""
        self.kill()
        self._epmd.kill()
        self._epmd.wait()


def free_ports(n: int) -> list[int]:
    """Ports nobody listens on."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports
