"""The channel to a worker: frames over a socket pair; a kill can tear one, and none is ever misread.

A frame is a header of 24 bytes (little endian) and a body::

    magic   4s   b"TRP1"
    kind    u8   what it means; the two ends agree
    flags   u8   1: the body travels in a memfd beside the header (SCM_RIGHTS), not in the stream
    zero    u16
    length  u32  bytes of the body
    id      u64  which piece of work
    crc     u32  CRC-32 of the 20 bytes before it and of the body

Anything else ends the channel (`ConnectionAbortedError`): after a corrupt frame nothing can be trusted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple
from zlib import crc32

MAGIC = b"TRP1"
HEADER = Struct("<4sBBHIQ")
CRC = Struct("<I")
HEADER_BYTES = HEADER.size + CRC.size
IN_MEMFD = 1
MEMFD_BYTES = 256 * 1024  # bodies from here on travel by memfd: one system call instead of dozens
MAX_BODY_BYTES = 1 << 30
READ_BYTES = MEMFD_BYTES + HEADER_BYTES  # no frame in the stream is longer
DESCRIPTOR_BYTES = socket.CMSG_SPACE(16 * 4)


class Frame(NamedTuple):
    """One message between the node and a worker."""

    kind: int
    id: int
    body: bytes


def pack_header(kind: int, id: int, body: bytes, flags: int = 0) -> bytes:
    """The 24 bytes in front of `body`."""
    header = HEADER.pack(MAGIC, kind, flags, 0, len(body), id)
    return header + CRC.pack(crc32(body, crc32(header)))


class Decoder:
    """Reads a socket into one buffer, again and again, and takes whole frames out of it."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(2 * READ_BYTES))  # at least half of it is free: see `receive`
        self._start = self._end = 0
        self._descriptors: deque[int] = deque()

    def receive(self, sock: socket.socket, flags: int = 0) -> int:
        """Take in what one `recvmsg` brings, at most `READ_BYTES`; returns how many bytes that was."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end > READ_BYTES:
            held = bytes(self._buffer[self._start : self._end])  # less than a frame
            self._start, self._end = 0, len(held)
            self._buffer[: self._end] = held
        space = self._buffer[self._end : self._end + READ_BYTES]
        size, ancillary, _, _ = sock.recvmsg_into([space], DESCRIPTOR_BYTES, flags)
        self._end += size
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                whole = len(content) // 4 * 4
                self._descriptors.extend(memoryview(content)[:whole].cast("i"))
        return size

    def next(self) -> Frame | None:
        """The next whole frame, if there is one.

        Raises: ConnectionAbortedError if the bytes are no frame.
        """
        header = self._buffer[self._start : self._end][:HEADER_BYTES]
        if len(header) < HEADER_BYTES:
            return None
        magic, kind, flags, zero, length, id = HEADER.unpack_from(header)
        limit = MAX_BODY_BYTES if flags & IN_MEMFD else MEMFD_BYTES - 1
        if magic != MAGIC or zero or flags & ~IN_MEMFD or length > limit:
            raise ConnectionAbortedError(f"no frame: {bytes(header)!r}")
        start = self._start + HEADER_BYTES
        end = start if flags & IN_MEMFD else start + length
        if self._end < end:
            return None
        body = self._from_memfd(length) if flags & IN_MEMFD else bytes(self._buffer[start:end])
        (crc,) = CRC.unpack_from(header, HEADER.size)
        if crc != crc32(body, crc32(header[: HEADER.size])):
            raise ConnectionAbortedError(f"frame {id} of kind {kind} is corrupt: its CRC does not match")
        self._start = end
        return Frame(kind, id, body)

    def close(self) -> None:
        """Drop what is left, and the buffer at once: whoever still holds a dead channel holds little."""
        self._buffer, self._start, self._end = memoryview(b""), 0, 0
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _from_memfd(self, length: int) -> bytes:
        if not self._descriptors:
            raise ConnectionAbortedError("a frame's descriptor is missing")
        with os.fdopen(self._descriptors.popleft(), "rb", buffering=0) as file:
            file.seek(0)
            return file.read(length)


def into_memfd(body: bytes) -> int:
    """A new memfd that holds `body`."""
    descriptor = os.memfd_create("triptych-frame")
    view = memoryview(body)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def _rights(descriptor: int) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, "little"))]


class AsyncChannel:
    """The node's end: never blocks; calls `on_frame` with each frame, `on_close` once with what was wrong."""

    def __init__(
        self, sock: socket.socket, on_frame: Callable[[Frame], None], on_close: Callable[[str], None]
    ) -> None:
        sock.setblocking(False)
        self._socket, self._on_frame, self._on_close = sock, on_frame, on_close
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._backlog: deque[tuple[memoryview, int | None]] = deque()
        self._open, self._blocked = True, False
        self._loop.add_reader(sock, self._read)

    def send(self, kind: int, id: int, body: bytes = b"") -> None:
        """Send one frame, now or as soon as the socket takes it; nothing after the channel is closed."""
        if not self._open:
            return
        if len(body) >= MEMFD_BYTES:
            self._backlog.append((memoryview(pack_header(kind, id, body, IN_MEMFD)), into_memfd(body)))
        else:
            self._backlog.append((memoryview(pack_header(kind, id, body) + body), None))
        if len(self._backlog) == 1:
            self._write()

    def finish(self) -> None:
        """Tell the other end that no more frames will come."""
        if self._open:
            self._socket.shutdown(socket.SHUT_WR)

    def receive_all(self) -> None:
        """Read what has already arrived; for the moment after the other end's death."""
        while self._open and self._read():
            pass

    def close(self, reason: str = "") -> None:
        """Close the socket and drop whatever is half sent or half received."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._unblock()
        self._socket.close()
        self._decoder.close()
        for _, descriptor in self._backlog:
            if descriptor is not None:
                os.close(descriptor)
        self._backlog.clear()
        self._on_close(reason)

    def _read(self) -> bool:
        try:
            if not self._decoder.receive(self._socket):
                self.close()
                return False
            while self._open and (frame := self._decoder.next()) is not None:
                self._on_frame(frame)
        except BlockingIOError:
            return False
        except OSError as error:  # ConnectionAbortedError of a bad frame is one
            self.close(str(error))
            return False
        return True

    def _write(self) -> None:
        try:
            while self._backlog:
                view, descriptor = self._backlog[0]
                sent = self._socket.sendmsg([view], [] if descriptor is None else _rights(descriptor))
                if descriptor is not None:
                    os.close(descriptor)
                self._backlog[0] = view[sent:], None
                if sent == len(view):
                    self._backlog.popleft()
        except BlockingIOError:
            if not self._blocked:
                self._blocked = True
                self._loop.add_writer(self._socket, self._write)
        except OSError as error:
            self.close(str(error))
        else:
            self._unblock()

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self._loop.remove_writer(self._socket)


class BlockingChannel:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._decoder = Decoder()

    def send(self, kind: int, id: int, body: bytes = b"") -> None:
        """Send one frame; waits while the other end does not read."""
        if len(body) < MEMFD_BYTES:
            self._socket.sendall(pack_header(kind, id, body) + body)
            return
        header, descriptor = pack_header(kind, id, body, IN_MEMFD), into_memfd(body)
        try:
            sent = self._socket.sendmsg([header], _rights(descriptor))
            self._socket.sendall(header[sent:])
        finally:
            os.close(descriptor)

    def receive(self, *, wait: bool) -> Frame | None:
        """The next frame; None if there is none yet and `wait` is false.

        Raises: EOFError once the other end is closed, ConnectionAbortedError if the bytes are no frame.
        """
        while (frame := self._decoder.next()) is None:
            try:
                size = self._decoder.receive(self._socket, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not size:
                raise EOFError("the other end is closed")
        return frame

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        self._decoder.close()
