"""Sockets to listen on."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any

from .addresses import find_addresses


async def bind_tcp(
    host: str | Sequence[str] | None,
    port: int | None,
    family: int,
    backlog: int,
    reuse_address: bool | None,
    reuse_port: bool,
) -> list[socket.socket]:
    """Listen on all addresses of the hosts. Several share the port that the first one gets for port 0.

    Raises OSError if one of the hosts cannot be had; then none is kept. Of a host with several addresses, those of a
    family that this machine is not set up for are passed over: a name has ::1 where IPv6 is off, too.
    """
    hosts = [host] if isinstance(host, str) or host is None else list(host)
    had: dict[Any, socket.socket] = {}
    try:
        for name in hosts:
            found = await find_addresses(name or None, port or 0, family=family, flags=socket.AI_PASSIVE)
            errors: list[OSError] = []
            for kind, _, _, _, address in found:
                if address in had:
                    continue
                where = address
                if had and not port:
                    where = (address[0], next(iter(had.values())).getsockname()[1], *address[2:])
                try:
                    had[address] = _listen(kind, where, backlog, reuse_address, reuse_port)
                except OSError as error:
                    if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    errors.append(error)
            if len(errors) == len(found):
                raise errors[0]
    except BaseException:
        for sock in had.values():
            sock.close()
        raise
    return list(had.values())


def _listen(
    family: int, address: tuple[Any, ...], backlog: int, reuse_address: bool | None, reuse_port: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
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


def bind_unix(path: str | os.PathLike[str], backlog: int) -> socket.socket:
    """Listen at `path`; a socket that a server left behind there is replaced. Raises OSError."""
    path = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not path.startswith("\0"):  # Linux's abstract names are no files
            try:
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    os.remove(path)
            except FileNotFoundError:
                pass
        sock.setblocking(False)
        sock.bind(path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {path}: {error.strerror or error}") from None
    return sock
