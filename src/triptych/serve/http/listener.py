"""Closing a listening socket without cutting off who has just come in.

Closing it resets the connections that the kernel has accepted and this process has not. So first it is closed
to new ones (a socket filter that drops every packet: a client that tries to connect just then is refused as
soon as the socket is gone), then those that wait are taken in, and only then may it be closed.
"""

from __future__ import annotations

import asyncio
import ctypes
import select
import socket
import struct

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # linux/socket.h
DROP = struct.pack("=HBBI", 0x06, 0, 0, 0)  # one instruction of BPF: return 0, keep no byte of the packet
LOOK_EVERY_S = 0.001
LONGEST_S = 1.0


def refuse_new(listener: socket.socket) -> None:
    """From now on the kernel lets nobody in; who is in its backlog stays there."""
    program = ctypes.create_string_buffer(DROP, len(DROP))
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def admit_new(listener: socket.socket) -> None:
    """Let everybody in: the socket is the root's, and outlives a process that closed it to new ones."""
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        return  # it was open to all


async def close_to_new(listener: socket.socket) -> None:
    """Let nobody new in, and return once the event loop has accepted everyone who waited."""
    refuse_new(listener)
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + LONGEST_S
    while waiting.poll(0) and loop.time() < until_s:
        await asyncio.sleep(LOOK_EVERY_S)
