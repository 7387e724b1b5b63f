"""A relay of TCP: what lies between a server and RabbitMQ, to be cut, frozen, or moved to another node."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

CHUNK_BYTES = 2**18
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST


class Relay:
    """Listens on a port of its own and passes bytes on to the first of `targets` that takes a connection.

    Args:
        targets: ports on this machine, in the order they are tried.

    Attributes:
        port: where it listens.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        self._targets = list(targets)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passing = threading.Event()
        self._passing.set()
        self._lock = threading.Lock()
        self._pairs: list[Pair] = []
        self._sought = self._awaited = b""
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def freeze(self) -> None:
        """From now on nothing passes, in either direction, and nobody is told: half-open connections."""
        self._passing.clear()

    def thaw(self) -> None:
        """What was held back passes again."""
        self._passing.set()

    def cut_between(self, sought: bytes, awaited: bytes) -> threading.Event:
        """Cut the connection that next carries `sought` to the target.

        The client is cut off at once; the target once it has answered with `awaited`, which is lost.

        Returns: set once that has happened.
        """
        with self._lock:
            self._sought, self._awaited, self._is_cut = sought, awaited, threading.Event()
        return self._is_cut

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            reset(pair.client)
            reset(pair.target)

    def close(self) -> None:
        """Let go of everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        self.cut()
        self._passing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = self._connect()
            if target is None:
                client.close()
                continue
            pair = Pair(client, target)
            with self._lock:
                self._pairs.append(pair)
            for pump in (self._pump_up, self._pump_down):
                threading.Thread(target=pump, args=[pair], daemon=True).start()

    def _connect(self) -> socket.socket | None:
        for port in self._targets:
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", port))
        return None

    def _pump_up(self, pair: Pair) -> None:
        """From the client to the target."""
        with suppress(OSError):
            while chunk := pair.client.recv(CHUNK_BYTES):
                self._passing.wait()
                pair.awaited = self._awaited_behind(chunk)
                pair.target.sendall(chunk)
                if pair.awaited:
                    return reset(pair.client)
        end(pair.target)

    def _pump_down(self, pair: Pair) -> None:
        """From the target to the client; into the void once the client is cut off."""
        with suppress(OSError):
            while chunk := pair.target.recv(CHUNK_BYTES):
                self._passing.wait()
                if not pair.awaited:
                    pair.client.sendall(chunk)
                elif pair.awaited in chunk:
                    self._is_cut.set()
                    return reset(pair.target)
        end(pair.client)

    def _awaited_behind(self, chunk: bytes) -> bytes:
        """What the target is to answer before it is cut off; empty if this connection goes on."""
        with self._lock:
            if not self._sought or self._sought not in chunk:
                return b""
            self._sought = b""
            return self._awaited


@dataclass
class Pair:
    """A client's connection and the one it is passed on to."""

    client: socket.socket
    target: socket.socket
    awaited: bytes = b""


def reset(side: socket.socket) -> None:
    """End a connection at once, so that the other side is told."""
    with suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        side.shutdown(socket.SHUT_RDWR)
    side.close()


def end(side: socket.socket) -> None:
    """Say that nothing more comes."""
    with suppress(OSError):
        side.shutdown(socket.SHUT_WR)
