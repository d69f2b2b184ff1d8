"""Other libraries as peers: each behind the same few verbs, as client and as server.

What a library cannot do is not imitated: `Library` says so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import pytest

from fullduplex import Connection, ServerConnection, connect, serve
from peers import HOST

aiohttp = pytest.importorskip("aiohttp")
web = pytest.importorskip("aiohttp.web")
websockets = pytest.importorskip("websockets")

Data = str | bytes


class Wish(NamedTuple):
    """How a connection is to be made. `context` is that of the side it is given to."""

    context: ssl.SSLContext | None = None
    subprotocols: Sequence[str] = ()
    compression: bool = False  # what the other library does by default
    autoping: bool = True  # aiohttp: answers pings, and then does not show pongs


class Peer(Protocol):
    """The other library's side of a connection."""

    async def send(self, message: Data) -> None: ...
    async def send_fragments(self, parts: list[Any]) -> None: ...
    async def recv(self) -> Data: ...
    async def ping(self, payload: bytes) -> None:
        """Send a ping and wait for its pong."""

    async def close(self, code: int, reason: str) -> None: ...
    async def closed(self) -> tuple[int, str]:
        """Wait for the peer's close frame: its code and reason."""

    async def leave(self) -> None:
        """End what is left; aiohttp does not answer a close frame while nobody receives."""

    @property
    def subprotocol(self) -> str | None: ...


class WebsocketsPeer:
    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.send = ws.send
        self.send_fragments = ws.send
        self.recv = ws.recv
        self.leave = ws.close
        self.subprotocol = ws.subprotocol

    async def ping(self, payload: bytes) -> None:
        await (await self.ws.ping(payload))

    async def close(self, code: int, reason: str) -> None:
        await self.ws.close(code, reason)

    async def closed(self) -> tuple[int, str]:
        await self.ws.wait_closed()
        return self.ws.close_code, self.ws.close_reason


class AiohttpPeer:
    def __init__(self, ws: Any, subprotocol: str | None) -> None:
        self.ws = ws
        self.leave = ws.close
        self.subprotocol = subprotocol

    async def send(self, message: Data) -> None:
        await (self.ws.send_str if isinstance(message, str) else self.ws.send_bytes)(message)

    async def send_fragments(self, parts: list[Any]) -> None:
        raise NotImplementedError

    async def recv(self) -> Data:
        message = await self.ws.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: Data = message.data
        return data

    async def ping(self, payload: bytes) -> None:
        await self.ws.ping(payload)
        message = await self.ws.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, payload)

    async def close(self, code: int, reason: str) -> None:
        await self.ws.close(code=code, message=reason.encode())

    async def closed(self) -> tuple[int, str]:
        message = await self.ws.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return message.data or 1005, message.extra or ""  # 0 is its way to say that there was no code


@asynccontextmanager
async def websockets_client(uri: str, wish: Wish) -> AsyncIterator[Peer]:
    async with websockets.connect(
        uri,
        ssl=wish.context,
        subprotocols=wish.subprotocols or None,
        compression="deflate" if wish.compression else None,
        proxy=None,
    ) as ws:
        yield WebsocketsPeer(ws)


@asynccontextmanager
async def websockets_server(accepted: Callable[[Peer], None], wish: Wish) -> AsyncIterator[int]:
    async def handler(ws: Any) -> None:
        accepted(WebsocketsPeer(ws))
        await ws.wait_closed()

    async with websockets.serve(
        handler,
        HOST,
        0,
        ssl=wish.context,
        subprotocols=wish.subprotocols or None,
        compression="deflate" if wish.compression else None,
    ) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def aiohttp_client(uri: str, wish: Wish) -> AsyncIterator[Peer]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            uri,
            ssl=wish.context or True,
            protocols=wish.subprotocols,
            compress=15 if wish.compression else 0,
            autoping=wish.autoping,
        ) as ws,
    ):
        yield AiohttpPeer(ws, ws.protocol)


@asynccontextmanager
async def aiohttp_server(accepted: Callable[[Peer], None], wish: Wish) -> AsyncIterator[int]:
    leaving = asyncio.Event()

    async def handler(request: Any) -> Any:
        ws = web.WebSocketResponse(protocols=wish.subprotocols, compress=wish.compression, autoping=wish.autoping)
        await ws.prepare(request)
        accepted(AiohttpPeer(ws, ws.ws_protocol))
        await leaving.wait()
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0, ssl_context=wish.context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        leaving.set()
        await runner.cleanup()


class Library(NamedTuple):
    client: Callable[[str, Wish], AbstractAsyncContextManager[Peer]]
    server: Callable[[Callable[[Peer], None], Wish], AbstractAsyncContextManager[int]]
    sends_fragments: bool


LIBRARIES = {
    "websockets": Library(websockets_client, websockets_server, True),
    "aiohttp": Library(aiohttp_client, aiohttp_server, False),
}


class Meeting(NamedTuple):
    """Which library meets us, in which role, over what."""

    library: str
    we_serve: bool
    contexts: tuple[ssl.SSLContext, ssl.SSLContext] | None

    @asynccontextmanager
    async def __call__(
        self, *, ours: Sequence[str] = (), theirs: Sequence[str] = (), compression: bool = False, autoping: bool = True
    ) -> AsyncIterator[tuple[Connection, Peer]]:
        """Both ends of one connection; `ours` and `theirs` are the subprotocols of each."""
        library = LIBRARIES[self.library]
        server_context, client_context = self.contexts or (None, None)
        scheme, host = ("wss", "localhost") if self.contexts else ("ws", HOST)
        wish = Wish(client_context if self.we_serve else server_context, theirs, compression, autoping)
        accepted: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.we_serve:

            async def handler(ws: ServerConnection) -> None:
                accepted.set_result(ws)
                await ws.wait_closed()

            async with serve(handler, HOST, 0, ssl=server_context, subprotocols=ours or None) as server:
                uri = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/"
                async with library.client(uri, wish) as peer:
                    yield await accepted, peer
        else:
            async with library.server(accepted.set_result, wish) as port:
                uri = f"{scheme}://{host}:{port}/"
                async with connect(uri, ssl=client_context, subprotocols=ours or None) as ws:
                    peer = await accepted
                    try:
                        yield ws, peer
                    finally:
                        await peer.leave()
