"""Other libraries as echo servers and echo clients that compress: in Python, and on Node all in one process.

A large message is echoed in three fragments, with pings between them, where the library can.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from fullduplex import Connection, ServerConnection, connect, serve
from fullduplex.extensions import PerMessageDeflate
from interop.libraries import Data, aiohttp, web, websockets
from interop.tap import Tap, tapped
from peers import HOST, port_of

permessage_deflate = pytest.importorskip("websockets.extensions.permessage_deflate")

SCRIPT = Path(__file__).parent / "node" / "peers.js"
LARGE = 300  # bytes: echoed in fragments


class Terms(NamedTuple):
    """What one side asks for. RFC 7692, section 7.1."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None  # None in an offer: the parameter without a value

    def asked(self) -> dict[str, Any]:
        return {name: value for name, value in self._asdict().items() if value}


class Library(NamedTuple):
    name: str
    # Echoes until the connection closes.
    client: Callable[[str, Terms | None], Coroutine[Any, Any, None]]
    # Gives the port and the path of a URI.
    server: Callable[[Terms | None], AbstractAsyncContextManager[tuple[int, str]]]
    compresses: bool = True
    sends_fragments: bool = True


# In Python.


async def websockets_echo(ws: Any) -> None:
    async def parts(message: Data) -> AsyncIterator[Data]:
        size = -(-len(message) // 3)
        for at in (0, size, 2 * size):
            if at:
                await ws.ping()
            yield message[at : at + size]

    async for message in ws:
        await ws.send(message if len(message) < LARGE else parts(message))


async def websockets_client(uri: str, terms: Terms | None) -> None:
    factory = permessage_deflate.ClientPerMessageDeflateFactory
    asked = None if terms is None else [factory(**{"client_max_window_bits": True, **terms.asked()})]
    async with websockets.connect(uri, compression=None, extensions=asked, proxy=None) as ws:
        await websockets_echo(ws)


@asynccontextmanager
async def websockets_server(terms: Terms | None) -> AsyncIterator[tuple[int, str]]:
    factory = permessage_deflate.ServerPerMessageDeflateFactory
    asked = None if terms is None else [factory(**terms.asked())]
    async with websockets.serve(websockets_echo, HOST, 0, compression=None, extensions=asked) as server:
        yield server.sockets[0].getsockname()[1], "/"


async def aiohttp_echo(ws: Any) -> None:
    async for message in ws:
        await (ws.send_str if message.type is aiohttp.WSMsgType.TEXT else ws.send_bytes)(message.data)


async def aiohttp_client(uri: str, terms: Terms | None) -> None:
    """It can ask for one thing only, the server's window."""
    bits = 0 if terms is None else terms.server_max_window_bits or 15
    async with aiohttp.ClientSession() as session, session.ws_connect(uri, compress=bits) as ws:
        await aiohttp_echo(ws)


@asynccontextmanager
async def aiohttp_server(terms: Terms | None) -> AsyncIterator[tuple[int, str]]:
    """It takes what is asked, and asks for nothing."""

    async def handler(request: Any) -> Any:
        ws = web.WebSocketResponse(compress=terms is not None)
        await ws.prepare(request)
        await aiohttp_echo(ws)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1], "/"
    finally:
        await runner.cleanup()


# On Node.


class Node(NamedTuple):
    """Where the process listens that plays all peers on Node."""

    port: int

    def ws(self) -> Library:
        return Library("ws", lambda uri, terms: self.client("ws", uri, terms), self.ws_server)

    def undici(self) -> Library:
        """It is a client only, which never compresses."""
        return Library("undici", lambda uri, terms: self.client("undici", uri, terms), self.ws_server, False, False)

    async def client(self, library: str, uri: str, terms: Terms | None) -> None:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            body = json.dumps({"library": library, "url": uri, "options": ws_options(terms)})
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            answer = await reader.read()
            end = json.loads(answer.partition(b"\r\n\r\n")[2])
            assert (end["code"], end["errors"]) == (1000, [])
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def ws_server(self, terms: Terms | None) -> AsyncIterator[tuple[int, str]]:
        yield self.port, f"/?{quote(json.dumps(ws_options(terms)))}"


def ws_options(terms: Terms | None) -> dict[str, Any]:
    if terms is None:
        return {"perMessageDeflate": False}
    asked: dict[str, Any] = {"threshold": 0}
    for name, value in terms.asked().items():
        first, *words = name.split("_")
        asked[first + "".join(map(str.title, words))] = value  # max_size -> maxSize
    return {"perMessageDeflate": asked}


@contextmanager
def run_node() -> Iterator[Node]:
    with subprocess.Popen(["node", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Node(int(process.stdout.readline()))
        process.stdin.close()  # which ends it


# Meeting them.


@asynccontextmanager
async def meeting(
    library: Library, we_serve: bool, ours: Terms | None, theirs: Terms | None
) -> AsyncIterator[tuple[Connection, Tap]]:
    """Our side of a connection with an echo, and a tap that has heard all of it at the end. We close it."""
    compression = None if ours is None else PerMessageDeflate(**ours.asked())
    if not we_serve:
        async with (
            library.server(theirs) as (port, path),
            tapped(port) as tap,
            connect(f"ws://{HOST}:{tap.port}{path}", compression=compression) as client,
        ):
            yield client, tap
        return

    accepted: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    async def handler(ws: ServerConnection) -> None:
        accepted.set_result(ws)
        await ws.wait_closed()

    async with (
        serve(handler, HOST, 0, compression=compression) as server,
        tapped(port_of(server)) as tap,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(library.client(f"ws://{HOST}:{tap.port}/", theirs))
        async with await accepted as connection:
            yield connection, tap
