"""The address of gRPC, held by the root for as long as it lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import msgspec

from triptych.errors import ConfigError
from triptych.serve.settings import Settings

PACKAGES = {"grpc": "grpcio", "google.protobuf": "protobuf"}
QUIET = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "false"}


@contextmanager
def held(settings: Settings) -> Iterator[tuple[Settings, str]]:
    """Hold the port while the block runs, so that each node finds it again and no other process takes it.

    The library opens sockets of its own and cannot be handed one. So the one here is bound and does not
    listen, and the node's shares its port: `SO_REUSEPORT`, set only after it was bound, or it would share
    the port with whoever has it already. For as long as it is held, only this user's processes that ask for
    that can share it.

    Yields: the settings, with the port that was chosen, and the address to listen on; empty without gRPC.

    Raises: ConfigError when a package is missing, or the address cannot be had.
    """
    if settings.grpc.port < 0:
        yield settings, ""
        return
    check_packages()
    host = settings.http.host
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        try:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind((host, settings.grpc.port))  # beside old connections (REUSEADDR), and nothing else
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{settings.grpc.port} ({os.strerror(error.errno or 0).lower()})",
                where="grpc",
                remedy="choose another grpc.port (0 takes a free one) or --host",
            ) from error
        host, port = holder.getsockname()[:2]
        grpc = msgspec.structs.replace(settings.grpc, port=port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        yield msgspec.structs.replace(settings, grpc=grpc), address


def check_packages() -> None:
    """Raise ConfigError if a package is missing; none is imported, the root does without them."""
    for module, package in PACKAGES.items():
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # the package that `module` is in
            found = None
        if found is None:
            raise ConfigError(
                f"needs {package}, which is not installed",
                where="grpc.port",
                valid="-1: no gRPC",
                remedy="install it with pip install 'triptych[grpc]'",
            )


def environment() -> dict[str, str]:
    """What the node's process is told: the library logs nothing by itself, in a form of its own, and does
    nothing when workers are started; unless the operator says otherwise.
    """
    return {name: os.environ.get(name, value) for name, value in QUIET.items()}
