"""Both ends of a connection for tests: ours to ours, and a raw peer that sends whatever a test wants.

The raw peer shares no code with the library.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trustme

from fullduplex import ClientConnection, Server, ServerConnection, connect, serve

HOST = "127.0.0.1"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    f"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def port_of(server: Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def url(server: Server, scheme: str = "ws") -> str:
    return f"{scheme}://{'localhost' if scheme == 'wss' else HOST}:{port_of(server)}/"


@asynccontextmanager
async def pair(
    client_options: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[ClientConnection, ServerConnection]]:
    """Both ends of one connection: the client's, and that of a server whose handler waits for the end.

    Nothing is compressed unless it is asked for, so that bytes can be counted.
    """
    options.setdefault("compression", None)
    accepted: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        accepted.set_result(ws)
        await ws.wait_closed()

    async with serve(handler, HOST, 0, **options) as server, connect(url(server), **client_options or {}) as ws:
        yield ws, await accepted


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        await ws.send(message)


def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server that is `localhost`, and for a client that trusts it."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


# The raw peer.


class Frame(NamedTuple):
    opcode: int
    payload: bytes = b""
    fin: bool = True


def encode(opcode: int, payload: bytes = b"", fin: bool = True, *, mask: bool = False) -> bytes:
    """A frame, well-formed; a client's is masked, with a key of zeros."""
    size = len(payload)
    bit = 0x80 if mask else 0
    head = bytes([opcode | fin << 7])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if mask else b"") + payload


def close_frame(code: int, reason: str = "", *, mask: bool = False) -> bytes:
    return encode(CLOSE, code.to_bytes(2, "big") + reason.encode(), mask=mask)


def answer(request: bytes) -> bytes:
    """The response that opens a connection."""
    key = request.lower().split(b"sec-websocket-key:")[1].split(b"\r\n")[0].strip()
    key = request[request.lower().index(key) :][: len(key)]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


class Raw:
    """A peer on asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def frame(self) -> Frame | None:
        """The next frame, or None at the end of the stream."""
        try:
            first, second = await self.reader.readexactly(2)
        except asyncio.IncompleteReadError:
            return None
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        key = await self.reader.readexactly(4) if second & 0x80 else bytes(4)
        payload = await self.reader.readexactly(size)
        return Frame(first & 15, bytes(byte ^ key[i & 3] for i, byte in enumerate(payload)), first >= 0x80)

    def reset(self) -> None:
        """End TCP with RST."""
        self.writer.transport.abort()


@asynccontextmanager
async def raw_client(server: Server, request: bytes = REQUEST) -> AsyncIterator[Raw]:
    """A raw client; it has sent `request`."""
    reader, writer = await asyncio.open_connection(HOST, port_of(server))
    try:
        writer.write(request)
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_server(
    script: Callable[[Raw], Awaitable[None]], ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """A raw server that plays `script` with each client; gives its URI."""
    tasks = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await script(Raw(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(play, HOST, 0, ssl=ssl_context)
    try:
        yield f"{'wss' if ssl_context else 'ws'}://{HOST}:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await server.wait_closed()


# Cancelling.


class Awaited:
    """Drives a coroutine, counts what it awaits, and cancels the task at one of these.

    `late` cancels it when what it awaits has come already, and the task has not been run yet.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], cancel_at: int = 0, late: bool = False) -> None:
        self.coroutine = coroutine
        self.cancel_at = cancel_at
        self.late = late
        self.count = 0

    def __await__(self) -> Generator[Any, None, Any]:
        task = asyncio.current_task()
        assert task is not None
        step: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            self.count += 1
            if self.count == self.cancel_at:
                if self.late and isinstance(awaited, asyncio.Future):
                    awaited.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            try:
                yield awaited
                step = lambda: self.coroutine.send(None)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self.coroutine.throw(error)  # type: ignore[misc]  # noqa: E731


async def cancel_everywhere(make: Callable[[], Coroutine[Any, Any, Any]]) -> int:
    """Run what `make` makes to its end, then again and again, cancelled at each of its awaits in turn.

    Returns how many there were.
    """
    whole = Awaited(make())
    await whole
    for late in (False, True):
        for cancel_at in range(1, whole.count + 1):
            attempt = Awaited(make(), cancel_at, late)

            async def run(attempt: Awaited = attempt) -> None:
                await attempt

            task = asyncio.ensure_future(run())
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None, task
    return whole.count
