"""Sockets to listen on."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Sequence


async def bind_tcp(
    host: str | Sequence[str] | None,
    port: int | None,
    family: int,
    backlog: int,
    reuse_address: bool | None,
    reuse_port: bool,
) -> list[socket.socket]:
    """Listen on all addresses of the hosts. Several share the port that the first one gets for port 0.

    Raises OSError if one of them cannot be had; then none is kept.
    """
    hosts = [host] if isinstance(host, str) or host is None else list(host)
    loop = asyncio.get_running_loop()
    found = []
    for name in hosts:
        found += await loop.getaddrinfo(
            name or None, port or 0, family=family, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    sockets: list[socket.socket] = []
    try:
        for kind, _, protocol, _, address in dict.fromkeys(found):
            if not port and sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            sockets.append(_listen(socket.socket(kind, socket.SOCK_STREAM, protocol), address, backlog, reuse_address, reuse_port))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _listen(
    sock: socket.socket, address: tuple[object, ...], backlog: int, reuse_address: bool | None, reuse_port: bool
) -> socket.socket:
    try:
        if reuse_address or (reuse_address is None and os.name == "posix"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address[0]} port {address[1]}: {error.strerror}") from None
    return sock


def bind_unix(path: str | os.PathLike[str]) -> socket.socket:
    """A Unix socket at `path`; one that a server left behind there is replaced. Raises OSError."""
    path = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.remove(path)
    except FileNotFoundError:
        pass
    try:
        sock.bind(path)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror}") from None
    return sock
