"""Which addresses a host has."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final


async def find_addresses(host: str | None, port: int, *, family: int, flags: int = 0) -> list[Any]:
    """What `socket.getaddrinfo` knows of `host` for TCP. Raises OSError.

    A host that is an address is not looked up, so no thread is begun for it: in a process with one thread alone, system
    calls and memory cost less.
    """
    try:
        return socket.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)


# An IPv4 address and its port, in network order.
_IPV4: Final = struct.Struct("!4sH")


def pack_address(address: Any) -> Any:
    """What `socket` calls an address, in less memory if it is IPv4: 39 bytes instead of 150."""
    if not isinstance(address, tuple) or len(address) != 2:  # IPv6 has four, Unix has a path
        return address
    host, port = address
    try:
        return _IPV4.pack(socket.inet_aton(host), port)
    except (OSError, TypeError):  # of yet another family
        return address


def unpack_address(packed: Any) -> Any:
    """Likewise back. A Unix address may be bytes, too: it is of the abstract kind then, and begins with a zero."""
    if isinstance(packed, bytes) and packed[:1] > b"\0":
        host, port = _IPV4.unpack(packed)
        return socket.inet_ntoa(host), port
    return packed
