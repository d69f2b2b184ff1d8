"""Which addresses a host has."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


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
