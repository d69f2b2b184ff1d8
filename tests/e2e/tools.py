"""What the tests of whole programs have in common."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fullduplex import Server, connect
from peers import HOST, REQUEST, Raw, answer, port_of


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the limit of the test bounds it."""
    while not condition():
        await asyncio.sleep(0)


def reset(raw: Raw) -> None:
    """End TCP with RST, for sure: what `abort` sends depends on what is unread."""
    sock = raw.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.writer.transport.abort()


@asynccontextmanager
async def raw_peer(server: Server, context: ssl.SSLContext | None, request: bytes = REQUEST) -> AsyncIterator[Raw]:
    """As `raw_client`, also over TLS."""
    name: dict[str, Any] = {} if context is None else {"server_hostname": "localhost"}
    reader, writer = await asyncio.open_connection(HOST, port_of(server), ssl=context, **name)
    try:
        writer.write(request)
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


async def shake(raw: Raw) -> None:
    """A raw server's opening handshake."""
    raw.write(answer(await raw.head()))


async def check_alive(server: Server, context: ssl.SSLContext | None = None) -> None:
    """The server still serves, and nothing of those before is left in it."""
    await until(lambda: not server.connections and not server._opening and not server._handlers)
    uri = f"{'ws' if context is None else 'wss'}://localhost:{port_of(server)}/alive"
    async with connect(uri, ssl=context, host=HOST) as ws:
        await (await ws.ping())
