"""The leaves of the engine: written twice, here and in C in `calls.pxd`, as those of `wire`.

`fd` is the descriptor of a plain socket, for the form that asks the kernel itself; -1 for any other object.
"""

from __future__ import annotations

import socket


def read(sock: socket.socket, fd: int, buffer: bytearray) -> int:
    """Read into `buffer`: so many bytes, 0 at the end, -1 if there are none now. Raises OSError."""
    try:
        return sock.recv_into(buffer)
    except (BlockingIOError, InterruptedError):
        return -1


def write(sock: socket.socket, fd: int, data: bytearray) -> int:
    """Write of `data` so many bytes as the kernel takes. Raises OSError."""
    try:
        return sock.send(data)
    except (BlockingIOError, InterruptedError):
        return 0
