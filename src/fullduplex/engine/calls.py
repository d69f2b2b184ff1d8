"""The leaves of the engine: written twice, here and in C in `calls.pxd`, as those of `wire`.

`fd` is the descriptor of a plain socket or of an epoll object, for the form that asks the kernel itself; -1 for any
other object.
"""

from __future__ import annotations

import socket
from time import monotonic

from .poller import Poller, Watcher


def read(sock: socket.socket, fd: int, buffer: bytearray, most: int) -> int:
    """Read at most so many bytes into `buffer`: how many, 0 at the end, -1 if there are none now. Raises OSError."""
    try:
        return sock.recv_into(buffer, most)
    except (BlockingIOError, InterruptedError):
        return -1


def read_bytes(sock: socket.socket, fd: int, most: int) -> bytes | None:
    """Read at most so many bytes, or 32 KiB: b"" at the end, None if there are none now. Raises OSError."""
    try:
        return sock.recv(most)
    except (BlockingIOError, InterruptedError):
        return None


def write(sock: socket.socket, fd: int, data: bytes | bytearray) -> int:
    """Write of `data` so many bytes as the kernel takes. Raises OSError."""
    try:
        return sock.send(data)
    except (BlockingIOError, InterruptedError):
        return 0


def write_both(sock: socket.socket, fd: int, data: bytearray, more: bytes | bytearray | memoryview) -> int:
    """Write of `data` and, behind it, of `more` so many bytes as the kernel takes. Raises OSError."""
    if not hasattr(sock, "sendmsg"):  # on Windows
        return write(sock, fd, data)
    try:
        return sock.sendmsg((data, more))
    except (BlockingIOError, InterruptedError):
        return 0


def now() -> float:
    """This moment, in seconds of `time.monotonic`; for who has a descriptor of an epoll object."""
    return monotonic()


def poll(poller: Poller, fd: int, most: int, watcher: Watcher) -> int:
    """Have `watcher` serve what is ready now, at most so many; return how many there were. Raises OSError."""
    ready = poller.poll(0, most)
    for descriptor, events in ready:
        watcher.serve(descriptor, events)
    return len(ready)
