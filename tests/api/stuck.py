"""A server's connection whose peer has stopped reading, and reads again when it is told to.

The socket is a Unix one: what fits into it does not depend on the network, and does not change by itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fullduplex import Policy, ServerConnection, unix_serve
from peers import BINARY, REQUEST, TEXT, Frame, Raw

CHUNK = bytes(65_536)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so; the limit of the test bounds it."""
    while not condition():
        await asyncio.sleep(0)


class Peer:
    """A raw client that does not read until it is told to."""

    def __init__(self, ws: ServerConnection, sock: socket.socket) -> None:
        self.ws = ws
        self.sock = sock
        self.chunks = 0
        self.raw: Raw | None = None

    def fill(self) -> None:
        """Make the peer slow: nothing more gets into its socket until it reads."""
        while not self.ws.is_slow:
            self.ws.send(CHUNK)
            self.chunks += 1

    async def read(self) -> Raw:
        """Read on; what made it slow comes first."""
        if self.raw is None:
            self.raw = Raw(*await asyncio.open_unix_connection(sock=self.sock))
            await self.raw.head()
        for _ in range(self.chunks):
            assert await self.raw.frame() == Frame(BINARY, CHUNK)
        self.chunks = 0
        return self.raw

    def leave(self) -> None:
        if self.raw is None:
            self.sock.close()
        else:
            self.raw.writer.transport.abort()

    async def rest(self) -> list[str]:
        """The messages that come behind what made it slow, until the connection says "end"."""
        raw = await self.read()
        await until(lambda: self.ws.backlog is None or not self.ws.backlog.held)
        self.ws.send("end")
        messages = []
        while (frame := await raw.frame()) != Frame(TEXT, b"end"):
            assert frame is not None
            messages.append(frame.payload.decode())
        return messages


@asynccontextmanager
async def stuck(
    path: Path, policy: Policy = Policy.WAIT, **options: Any
) -> AsyncIterator[tuple[ServerConnection, Peer]]:
    """A server's connection, and its peer, which has stopped reading."""
    accepted: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        accepted.set_result(ws)
        await ws.wait_closed()

    place = str(path / "socket")
    async with unix_serve(handler, place, compression=None, **options):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(place)
        sock.sendall(REQUEST)
        sock.setblocking(False)
        peer = Peer(await accepted, sock)
        try:
            peer.fill()
            peer.ws.policy = policy
            yield peer.ws, peer
        finally:
            peer.leave()
